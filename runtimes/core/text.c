#include "text.h"

#include "crc32.h"
#include "port.h"

/* 2^64 has 20 digits. */
#define DIGIT_LIMIT 20

uint32_t printed_crc;

void print_byte(uint8_t byte) {
  printed_crc = crc32(printed_crc, &byte, 1);
  port_putc(byte);
}

void print_text(const char *text) {
  while (*text) print_byte((uint8_t)*text++);
}

void print_between(const char *before, const char *after, const char *text) {
  print_text(before);
  print_text(text);
  print_text(after);
}

uint32_t divide(uint64_t *value, uint32_t divisor) {
  uint64_t quotient = *value;
  uint32_t remainder = 0;
  for (int bit = 0; bit < 64; bit++) {
    uint32_t carry = remainder >> 31;
    remainder = remainder << 1 | (uint32_t)(quotient >> 63);
    quotient <<= 1;
    if (carry || remainder >= divisor) {
      remainder -= divisor;
      quotient |= 1;
    }
  }
  *value = quotient;
  return remainder;
}

/* At least `least` digits, zeros in front. */
static void print_unsigned(uint64_t value, int least) {
  char digits[DIGIT_LIMIT + 1];
  int first = DIGIT_LIMIT;
  digits[DIGIT_LIMIT] = 0;
  do {
    digits[--first] = (char)('0' + divide(&value, 10));
  } while (value != 0 || first > DIGIT_LIMIT - least);
  print_text(digits + first);
}

void print_number(const char *before, const char *after, uint64_t value) {
  print_text(before);
  print_unsigned(value, 1);
  print_text(after);
}

void print_hex(uint32_t value, uint32_t digits) {
  while (digits-- > 0) {
    uint32_t digit = value >> (4 * digits) & 15;
    print_byte((uint8_t)(digit + (digit < 10 ? '0' : 'a' - 10)));
  }
}

void print_thousandths(int64_t thousandths) {
  uint64_t size = (uint64_t)thousandths;
  if (thousandths < 0) {
    size = 0u - size;
    print_byte('-');
  }
  uint32_t fraction = divide(&size, 1000);
  print_number("", ".", size);
  print_unsigned(fraction, 3);
}

static char *cursor;

void start_words(char *line) { cursor = line; }

char *next_word(void) {
  char *start = cursor;
  char *end;
  while (*start == ' ') start++;
  for (end = start; *end != 0 && *end != ' '; end++) {
  }
  cursor = end;
  if (*end != 0) *cursor++ = 0;
  return start;
}

const char *rest_of_line(void) { return cursor; }

int words_equal(const char *one, const char *two) {
  while (*one != 0 && *one == *two) {
    one++;
    two++;
  }
  return *one == *two;
}

uint32_t parse_unsigned(const char *word) {
  uint32_t total = 0;
  if (*word == 0) return NOT_A_NUMBER;
  for (; *word != 0; word++) {
    uint32_t digit = (uint32_t)*word - '0';
    /* Ten times more still fits 32 bits. */
    if (digit > 9 || total > 0xfffffffu) return NOT_A_NUMBER;
    total = total * 10 + digit;
  }
  return total;
}

uint32_t next_number(void) { return parse_unsigned(next_word()); }

/* 16 for any other character. */
static uint32_t hex_digit(char digit) {
  uint32_t value = (uint32_t)digit - '0';
  if (value < 10) return value;
  value = (value | 0x20) - ('a' - '0');
  return value < 6 ? value + 10 : 16;
}

int32_t decode_hex(char *digits) {
  const char *next = digits;
  int32_t count = 0;
  while (*next != 0) {
    uint32_t high = hex_digit(*next++);
    uint32_t low = hex_digit(*next);
    if (*next == 0 && high < 16) return HEX_ODD;
    if (high > 15 || low > 15) return HEX_INVALID;
    next++;
    digits[count++] = (char)(high << 4 | low);
  }
  return count;
}
