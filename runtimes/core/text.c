#include "text.h"

#include "port.h"

void print_text(const char *text) {
  while (*text) port_putc((uint8_t)*text++);
}

void print_unsigned(uint64_t value) {
  char digits[21];
  int first = 20;
  digits[20] = 0;
  do {
    digits[--first] = (char)('0' + value % 10);
    value /= 10;
  } while (value != 0);
  print_text(digits + first);
}

void print_signed(int64_t value) {
  if (value < 0) {
    port_putc('-');
    print_unsigned(0u - (uint64_t)value);
  } else {
    print_unsigned((uint64_t)value);
  }
}

void print_hex(uint64_t value, int digits) {
  while (digits-- > 0) port_putc((uint8_t)"0123456789abcdef"[(value >> (4 * digits)) & 15]);
}

void print_hex_byte(uint8_t value) { print_hex(value, 2); }

void print_thousandths(int64_t thousandths) {
  uint64_t size = thousandths < 0 ? 0u - (uint64_t)thousandths : (uint64_t)thousandths;
  uint32_t fraction = (uint32_t)(size % 1000);
  if (thousandths < 0) port_putc('-');
  print_unsigned(size / 1000);
  port_putc('.');
  port_putc((uint8_t)('0' + fraction / 100));
  port_putc((uint8_t)('0' + fraction / 10 % 10));
  port_putc((uint8_t)('0' + fraction % 10));
}

void print_line_end(void) { print_text("\r\n"); }

char *next_word(char **cursor) {
  char *start = *cursor;
  char *end;
  while (*start == ' ') start++;
  if (*start == 0) return 0;
  for (end = start; *end != 0 && *end != ' '; end++) {
  }
  if (*end != 0) *end++ = 0;
  *cursor = end;
  return start;
}

int words_equal(const char *one, const char *two) {
  while (*one != 0 && *one == *two) {
    one++;
    two++;
  }
  return *one == *two;
}

int parse_unsigned(const char *word, uint32_t limit, uint32_t *value) {
  uint32_t total = 0;
  if (word == 0 || *word == 0) return -1;
  for (; *word != 0; word++) {
    uint32_t digit = (uint32_t)(*word - '0');
    if (digit > 9 || total > (limit - digit) / 10 || digit > limit) return -1;
    total = total * 10 + digit;
  }
  *value = total;
  return 0;
}

static int hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

int parse_hex_byte(const char *digits) {
  int high = hex_digit(digits[0]);
  int low = high < 0 ? -1 : hex_digit(digits[1]);
  return low < 0 ? -1 : high * 16 + low;
}

int parse_hex32(const char *word, uint32_t *value) {
  uint32_t total = 0;
  int position;
  if (word == 0) return -1;
  for (position = 0; position < 8; position++) {
    int digit = hex_digit(word[position]);
    if (digit < 0) return -1;
    total = total << 4 | (uint32_t)digit;
  }
  if (word[8] != 0) return -1;
  *value = total;
  return 0;
}
