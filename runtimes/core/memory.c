/* The four functions a compiler may call on its own, for builds without a C library. Weak, so that
 * a platform's faster ones win. */
#if !defined(__STDC_HOSTED__) || __STDC_HOSTED__ == 0

#include <stddef.h>
#include <stdint.h>

#define WEAK __attribute__((weak, used, no_builtin))

WEAK void *memset(void *target, int value, size_t count) {
  uint8_t *byte = target;
  while (count-- > 0) *byte++ = (uint8_t)value;
  return target;
}

WEAK void *memcpy(void *restrict target, const void *restrict source, size_t count) {
  uint8_t *to = target;
  const uint8_t *from = source;
  while (count-- > 0) *to++ = *from++;
  return target;
}

WEAK void *memmove(void *target, const void *source, size_t count) {
  uint8_t *to = target;
  const uint8_t *from = source;
  if (to <= from) {
    while (count-- > 0) *to++ = *from++;
  } else {
    while (count-- > 0) to[count] = from[count];
  }
  return target;
}

WEAK int memcmp(const void *one, const void *two, size_t count) {
  const uint8_t *a = one, *b = two;
  for (; count > 0; count--, a++, b++) {
    if (*a != *b) return *a < *b ? -1 : 1;
  }
  return 0;
}

#else
typedef int edgecompress_memory_is_the_platforms;
#endif
