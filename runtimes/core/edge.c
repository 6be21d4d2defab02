/* What the benchmark protocol lacks: identity, per-step runs with their cost, checksums and bounded
 * reads of the model's memory, and the stack's high-water mark. Replies begin with e2-. */
#include "crc32.h"
#include "port.h"
#include "runner.h"
#include "text.h"

#define READ_LINE_BYTES 64
#define READ_LIMIT_BYTES 16384
#define LOAD_LIMIT_BYTES 64

/* 0 before `edge begin`, then one more than the next step: all zeros costs no flash. */
static uint32_t next_step_plus_one;

typedef struct {
  uint8_t *bytes;
  uint32_t size;
} Area;

static void print_key(const char *key) {
  print_text("e2-info-");
  print_text(key);
  print_text("-[");
}

static void print_info_text(const char *key, const char *value) {
  print_key(key);
  print_text(value);
  print_text("]\r\n");
}

static void print_info_number(const char *key, uint64_t value) {
  print_key(key);
  print_unsigned(value);
  print_text("]\r\n");
}

static void edge_info(void) {
  print_info_number("abi", EDGE_ABI_VERSION);
  print_info_text("model", MODEL_HASH);
  print_info_text("target", PORT_TARGET_NAME);
  print_info_number("clock_hz", port_clock_hz());
  print_info_number("tick_hz", port_tick_hz());
  print_info_number("input_bytes", MODEL_INPUT_BYTES);
  print_info_number("output_bytes", MODEL_OUTPUT_BYTES);
  print_info_number("arena_bytes", MODEL_ARENA_BYTES);
  print_info_number("steps", MODEL_STEP_COUNT);
  print_info_number("arena_address", (uint64_t)(uintptr_t)model_arena);
}

static void print_ticks(uint64_t before, uint64_t after) {
  print_text("e2-ticks-");
  print_unsigned(after - before);
  print_line_end();
}

static void edge_run(void) {
  uint64_t before = port_ticks();
  runner_infer();
  print_ticks(before, port_ticks());
}

static void edge_begin(void) {
  next_step_plus_one = 1;
  print_text("e2-begin\r\n");
}

static void edge_step(char *arguments) {
  uint32_t step;
  char *word = next_word(&arguments);
  if (word == 0 || parse_unsigned(word, MODEL_STEP_COUNT - 1, &step) != 0) {
    reply_error("Command 'edge step' requires a step of the model", "");
  } else if (step + 1 != next_step_plus_one) {
    /* A later step would read memory the earlier ones have not written. */
    reply_error("Steps run in order after 'edge begin'", "");
  } else {
    uint64_t before = port_ticks();
    model_run_step((int)step);
    uint64_t after = port_ticks();
    next_step_plus_one = step + 2;
    print_ticks(before, after);
  }
}

static int find_area(const char *word, Area *area) {
  if (word == 0) return -1;
  if (words_equal(word, "arena")) {
    area->bytes = model_arena;
    area->size = MODEL_ARENA_BYTES;
  } else if (words_equal(word, "in")) {
    area->bytes = (uint8_t *)model_input();
    area->size = MODEL_INPUT_BYTES;
  } else if (words_equal(word, "out")) {
    area->bytes = (uint8_t *)model_output();
    area->size = MODEL_OUTPUT_BYTES;
  } else {
    return -1;
  }
  return 0;
}

/* OFFSET BYTES AREA, inside the area. 0 on success; the error has been printed otherwise. */
static int parse_range(char *arguments, Area *range) {
  uint32_t offset, count;
  char *offset_word = next_word(&arguments);
  char *count_word = next_word(&arguments);
  char *area_word = next_word(&arguments);
  if (find_area(area_word, range) != 0 || parse_unsigned(offset_word, range->size, &offset) != 0 ||
      parse_unsigned(count_word, range->size - offset, &count) != 0) {
    reply_error("Requires OFFSET BYTES in|arena|out, inside that memory", "");
    return -1;
  }
  range->bytes += offset;
  range->size = count;
  return 0;
}

static void print_crc(uint32_t crc) {
  print_text("e2-crc-");
  print_hex(crc, 8);
  print_line_end();
}

static void edge_crc(char *arguments) {
  Area range;
  if (parse_range(arguments, &range) == 0) print_crc(crc32(0, range.bytes, range.size));
}

/* e2-data-LENGTH-HEX lines, then the checksum of all of it. */
static void print_bytes(const uint8_t *bytes, uint32_t count) {
  uint32_t crc = crc32(0, bytes, count);
  while (count > 0) {
    uint32_t length = count < READ_LINE_BYTES ? count : READ_LINE_BYTES;
    print_text("e2-data-");
    print_unsigned(length);
    port_putc('-');
    for (uint32_t index = 0; index < length; index++) print_hex_byte(bytes[index]);
    print_line_end();
    bytes += length;
    count -= length;
  }
  print_crc(crc);
}

static void edge_read(char *arguments) {
  Area range;
  if (parse_range(arguments, &range) != 0) return;
  if (range.size > READ_LIMIT_BYTES) {
    reply_error("Command 'edge read' gives at most 16384 bytes", "");
    return;
  }
  print_bytes(range.bytes, range.size);
}

/* OFFSET HEX CRC: as db, but addressed and checked, so that a lost line is noticed at once. */
static void edge_load(char *arguments) {
  uint8_t bytes[LOAD_LIMIT_BYTES];
  uint32_t offset, crc, count = 0;
  char *offset_word = next_word(&arguments);
  char *digits = next_word(&arguments);
  char *crc_word = next_word(&arguments);
  if (digits == 0 || parse_unsigned(offset_word, MODEL_INPUT_BYTES, &offset) != 0 ||
      parse_hex32(crc_word, &crc) != 0) {
    reply_error("Command 'edge load' requires OFFSET HEX CRC", "");
    return;
  }
  for (; digits[0] != 0; digits += 2) {
    int byte = parse_hex_byte(digits);
    if (byte < 0 || count == LOAD_LIMIT_BYTES || offset + count >= MODEL_INPUT_BYTES) {
      reply_error("Bytes are malformed, too many, or past the input's end", "");
      return;
    }
    bytes[count++] = (uint8_t)byte;
  }
  if (crc32(0, bytes, count) != crc) {
    reply_error("Checksum differs, nothing stored", "");
    return;
  }
  for (uint32_t index = 0; index < count; index++) {
    ((uint8_t *)model_input())[offset + index] = bytes[index];
  }
  print_text("e2-loaded-");
  print_unsigned(offset + count);
  print_line_end();
}

static void edge_stack(void) {
  const uint32_t *limit, *top, *word;
  port_stack(&limit, &top);
  if (limit == 0) {
    reply_error("Stack bounds are not known on this port", "");
    return;
  }
  for (word = limit; word < top && *word == PORT_STACK_PAINT; word++) {
  }
  print_text("e2-stack-");
  print_unsigned((uint64_t)((uintptr_t)top - (uintptr_t)word));
  print_text("-of-");
  print_unsigned((uint64_t)((uintptr_t)top - (uintptr_t)limit));
  print_line_end();
}

void command_edge(char *arguments) {
  char *word = next_word(&arguments);
  if (word == 0) {
    reply_error("Command 'edge' requires a subcommand", "");
  } else if (words_equal(word, "info")) {
    edge_info();
  } else if (words_equal(word, "begin")) {
    edge_begin();
  } else if (words_equal(word, "step")) {
    edge_step(arguments);
  } else if (words_equal(word, "run")) {
    edge_run();
  } else if (words_equal(word, "crc")) {
    edge_crc(arguments);
  } else if (words_equal(word, "read")) {
    edge_read(arguments);
  } else if (words_equal(word, "load")) {
    edge_load(arguments);
  } else if (words_equal(word, "out")) {
    print_bytes((const uint8_t *)model_output(), MODEL_OUTPUT_BYTES);
  } else if (words_equal(word, "stack")) {
    edge_stack();
  } else {
    reply_error("Unknown subcommand: ", word);
  }
}
