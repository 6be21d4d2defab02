/* Printing and parsing without a C library. Nothing here reads or writes past what it is given. */
#ifndef EDGECOMPRESS_TEXT_H
#define EDGECOMPRESS_TEXT_H

#include <stddef.h>
#include <stdint.h>

void print_text(const char *text);
void print_unsigned(uint64_t value);
void print_signed(int64_t value);
void print_hex_byte(uint8_t value);
void print_hex(uint64_t value, int digits);

/* A value in thousandths, as -12.345. */
void print_thousandths(int64_t thousandths);

/* "\r\n": every reply ends so. */
void print_line_end(void);

/* Cuts the next space-separated word out of *cursor, in place; 0 when none is left. */
char *next_word(char **cursor);

int words_equal(const char *one, const char *two);

/* Decimal digits only, nothing before or after. 0 on success, -1 when malformed or above `limit`. */
int parse_unsigned(const char *word, uint32_t limit, uint32_t *value);

/* Exactly eight hexadecimal digits. 0 on success. */
int parse_hex32(const char *word, uint32_t *value);

/* The byte written by two hexadecimal digits; -1 when either is not one. */
int parse_hex_byte(const char *digits);

#endif
