/* Printing and parsing without a C library. Nothing here reads or writes past what it is given. */
#ifndef EDGECOMPRESS_TEXT_H
#define EDGECOMPRESS_TEXT_H

#include <stdint.h>

void print_text(const char *text);

/* `before`, the value in decimal, `after`. */
void print_number(const char *before, uint64_t value, const char *after);

/* The lowest `digits` hexadecimal digits. */
void print_hex(uint32_t value, uint32_t digits);

/* A value in thousandths, as -12.345. */
void print_thousandths(int64_t thousandths);

/* Divides *value by `divisor` in place and returns the remainder, one bit at a time: a compiler's
 * 64-bit division would be a tenth of the runner. */
uint32_t divide(uint64_t *value, uint32_t divisor);

/* Cuts the next space-separated word out of *cursor, in place; 0 when none is left. */
char *next_word(char **cursor);

int words_equal(const char *one, const char *two);

/* Decimal digits only, nothing before or after; `word` may be 0. 0 on success, -1 when malformed or
 * above `limit`. */
int parse_unsigned(const char *word, uint32_t limit, uint32_t *value);

/* Two hexadecimal digits a byte, written over the digits themselves; `digits` may be 0. Returns the
 * number of bytes, or which way the digits are wrong. */
#define HEX_INVALID (-1)
#define HEX_ODD (-2)
int32_t decode_hex(char *digits);

#endif
