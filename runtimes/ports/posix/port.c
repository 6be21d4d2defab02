/* A process: standard input and output are the console, the monotonic clock is the timer. */
#define _POSIX_C_SOURCE 200809L
#include "port.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#ifndef PORT_CLOCK_HZ
#define PORT_CLOCK_HZ 0
#endif

static uint8_t output[4096];
static size_t output_count;
static uint8_t input[4096];
static size_t input_position, input_count;

void port_init(void) {}

void port_flush(void) {
  size_t sent = 0;
  while (sent < output_count) {
    ssize_t count = write(STDOUT_FILENO, output + sent, output_count - sent);
    if (count > 0) {
      sent += (size_t)count;
    } else if (count < 0 && errno != EINTR) {
      /* Nobody listens any more. */
      exit(0);
    }
  }
  output_count = 0;
}

void port_putc(uint8_t byte) {
  if (output_count == sizeof output) port_flush();
  output[output_count++] = byte;
}

int port_getc(void) {
  if (input_position == input_count) {
    ssize_t count;
    port_flush();
    do {
      count = read(STDIN_FILENO, input, sizeof input);
    } while (count < 0 && errno == EINTR);
    if (count <= 0) return -1;
    input_count = (size_t)count;
    input_position = 0;
  }
  return input[input_position++];
}

uint64_t port_ticks(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t port_tick_hz(void) { return 1000000000u; }

uint32_t port_clock_hz(void) { return (uint32_t)(PORT_CLOCK_HZ); }

const char *port_clock_source(void) { return "host"; }

const char *port_settings(void) { return ""; }

/* A host names itself better from outside the process. */
uint32_t port_device_id(uint8_t id[PORT_DEVICE_ID_LIMIT]) {
  (void)id;
  return 0;
}

void port_stack(const uint32_t **limit, const uint32_t **top) {
  *limit = NULL;
  *top = NULL;
}
