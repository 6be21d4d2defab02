/* What the benchmark protocol lacks: identity, per-step runs with their cost, checksums and bounded
 * reads of the model's memory, and the stack's high-water mark. Replies begin with e2-. */
#include "crc32.h"
#include "port.h"
#include "runner.h"
#include "text.h"

#define READ_LINE_BYTES 64
#define READ_LIMIT_BYTES 16384

/* 0 before `edge begin`, then one more than the next step: all zeros costs no flash. */
static uint32_t next_step_plus_one;

typedef struct {
  const uint8_t *bytes;
  uint32_t size;
} Area;

static void print_info(const char *key, uintptr_t value) {
  print_text("e2-info-");
  print_number(key, value, "]\r\n");
}

static void edge_info(char *arguments) {
  (void)arguments;
  print_info("abi-[", EDGE_ABI_VERSION);
  print_text("e2-info-model-[" MODEL_HASH "]\r\ne2-info-target-[" PORT_TARGET_NAME "]\r\n");
  print_info("clock_hz-[", port_clock_hz());
  print_info("tick_hz-[", port_tick_hz());
  print_info("input_bytes-[", MODEL_INPUT_BYTES);
  print_info("output_bytes-[", MODEL_OUTPUT_BYTES);
  print_info("arena_bytes-[", MODEL_ARENA_BYTES);
  print_info("steps-[", MODEL_STEP_COUNT);
  print_info("arena_address-[", (uintptr_t)model_arena);
}

static void print_ticks(uint64_t ticks) { print_number("e2-ticks-", ticks, "\r\n"); }

static void edge_run(char *arguments) {
  (void)arguments;
  uint64_t before = port_ticks();
  runner_infer();
  print_ticks(port_ticks() - before);
}

static void edge_begin(char *arguments) {
  (void)arguments;
  next_step_plus_one = 1;
  print_text("e2-begin\r\n");
}

static void edge_step(char *arguments) {
  uint32_t step;
  if (parse_unsigned(next_word(&arguments), MODEL_STEP_COUNT - 1, &step) != 0 ||
      step + 1 != next_step_plus_one) {
    /* A later step would read memory the earlier ones have not written. */
    reply_error("Steps run in order after 'edge begin'");
    return;
  }
  next_step_plus_one++;
  uint64_t before = port_ticks();
  model_run_step((int)step);
  print_ticks(port_ticks() - before);
}

/* A size of 0 for a word that names none. */
static Area find_area(const char *word) {
  Area area = {0, 0};
  if (word == 0) return area;
  if (words_equal(word, "arena")) {
    area.bytes = model_arena;
    area.size = MODEL_ARENA_BYTES;
  } else if (words_equal(word, "in")) {
    area.bytes = (const uint8_t *)model_input();
    area.size = MODEL_INPUT_BYTES;
  } else if (words_equal(word, "out")) {
    area.bytes = (const uint8_t *)model_output();
    area.size = MODEL_OUTPUT_BYTES;
  }
  return area;
}

/* OFFSET BYTES AREA, inside the area. 0 on success; the error has been printed otherwise. */
static int parse_range(char *arguments, uint32_t most_bytes, Area *range) {
  uint32_t offset, count;
  const char *offset_word = next_word(&arguments);
  const char *count_word = next_word(&arguments);
  *range = find_area(next_word(&arguments));
  if (range->size == 0 || parse_unsigned(offset_word, range->size, &offset) != 0 ||
      parse_unsigned(count_word, range->size - offset, &count) != 0 || count > most_bytes) {
    reply_error("Requires OFFSET BYTES in|arena|out, inside that memory; reads up to 16384");
    return -1;
  }
  range->bytes += offset;
  range->size = count;
  return 0;
}

static void print_crc(const uint8_t *bytes, uint32_t count) {
  print_text("e2-crc-");
  print_hex(crc32(0, bytes, count), 8);
  print_text("\r\n");
}

static void edge_crc(char *arguments) {
  Area range;
  if (parse_range(arguments, MODEL_ARENA_BYTES, &range) == 0) print_crc(range.bytes, range.size);
}

/* e2-data-LENGTH-HEX lines, then the checksum of all of it. */
static void print_bytes(const uint8_t *bytes, uint32_t count) {
  for (uint32_t done = 0; done < count;) {
    uint32_t length = count - done < READ_LINE_BYTES ? count - done : READ_LINE_BYTES;
    print_number("e2-data-", length, "-");
    while (length-- > 0) print_hex(bytes[done++], 2);
    print_text("\r\n");
  }
  print_crc(bytes, count);
}

static void edge_read(char *arguments) {
  Area range;
  if (parse_range(arguments, READ_LIMIT_BYTES, &range) == 0) print_bytes(range.bytes, range.size);
}

static void edge_out(char *arguments) {
  (void)arguments;
  print_bytes((const uint8_t *)model_output(), MODEL_OUTPUT_BYTES);
}

/* OFFSET HEX CRC: as db, but addressed and checked, so that a lost line is noticed at once. */
static void edge_load(char *arguments) {
  uint32_t offset, crc = 0;
  const char *offset_word = next_word(&arguments);
  char *bytes = next_word(&arguments);
  char *sum = next_word(&arguments);
  int32_t count = decode_hex(bytes);
  if (parse_unsigned(offset_word, MODEL_INPUT_BYTES, &offset) != 0 || count < 0 ||
      (uint32_t)count > MODEL_INPUT_BYTES - offset || decode_hex(sum) != 4) {
    reply_error("Requires OFFSET HEX CRC, inside the input");
    return;
  }
  for (int index = 0; index < 4; index++) crc = crc << 8 | (uint8_t)sum[index];
  if (crc32(0, (const uint8_t *)bytes, (uint32_t)count) != crc) {
    reply_error("Checksum differs, nothing stored");
    return;
  }
  store_input(offset, bytes, (uint32_t)count);
  print_number("e2-loaded-", offset + (uint32_t)count, "\r\n");
}

static void edge_stack(char *arguments) {
  const uint32_t *limit, *top, *word;
  (void)arguments;
  port_stack(&limit, &top);
  if (limit == 0) {
    reply_error("Stack bounds are not known on this port");
    return;
  }
  for (word = limit; word < top && *word == PORT_STACK_PAINT; word++) {
  }
  print_number("e2-stack-", (uintptr_t)top - (uintptr_t)word, "-of-");
  print_number("", (uintptr_t)top - (uintptr_t)limit, "\r\n");
}

void command_edge(char *arguments) {
  static const Command commands[] = {
      {"info", edge_info}, {"begin", edge_begin}, {"step", edge_step}, {"run", edge_run},
      {"crc", edge_crc},   {"read", edge_read},   {"load", edge_load}, {"out", edge_out},
      {"stack", edge_stack}, {0, 0},
  };
  run_command(commands, arguments);
}
