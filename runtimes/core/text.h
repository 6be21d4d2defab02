/* Printing and parsing without a C library. Nothing here reads or writes past what it is given. */
#ifndef EDGECOMPRESS_TEXT_H
#define EDGECOMPRESS_TEXT_H

#include <stdint.h>

/* CRC-32 of every byte printed since it was last set to 0. */
extern uint32_t printed_crc;

void print_byte(uint8_t byte);

void print_text(const char *text);

void print_between(const char *before, const char *after, const char *text);

/* `before`, the value in decimal, `after`. */
void print_number(const char *before, const char *after, uint64_t value);

/* The lowest `digits` hexadecimal digits. */
void print_hex(uint32_t value, uint32_t digits);

/* A value in thousandths, as -12.345. */
void print_thousandths(int64_t thousandths);

/* Divides *value by `divisor` in place and returns the remainder, one bit at a time: a compiler's
 * 64-bit division would be a tenth of the runner. */
uint32_t divide(uint64_t *value, uint32_t divisor);

/* Where next_word begins; the line is cut up in place. */
void start_words(char *line);

/* The next space-separated word; empty when none is left. */
char *next_word(void);

/* What next_word has not taken yet. */
const char *rest_of_line(void);

int words_equal(const char *one, const char *two);

/* Decimal digits only, at least one. NOT_A_NUMBER when malformed or too large: above every limit it
 * is compared with. */
#define NOT_A_NUMBER 0xffffffffu
uint32_t parse_unsigned(const char *word);

/* parse_unsigned of the next word. */
uint32_t next_number(void);

/* Two hexadecimal digits a byte, written over the digits themselves. Returns the number of bytes,
 * or which way the digits are wrong. */
#define HEX_INVALID (-1)
#define HEX_ODD (-2)
int32_t decode_hex(char *digits);

#endif
