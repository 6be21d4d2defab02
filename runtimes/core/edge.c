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

static void print_info(const char *key, uintptr_t value) {
  print_text("e2-info-");
  print_number(key, "]\r\n", value);
}

static void edge_info(void) {
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

static void print_ticks(uint64_t ticks) { print_number("e2-ticks-", "\r\n", ticks); }

static void edge_run(void) {
  uint64_t before = port_ticks();
  runner_infer();
  print_ticks(port_ticks() - before);
}

static void edge_begin(void) {
  next_step_plus_one = 1;
  print_text("e2-begin\r\n");
}

static void edge_step(void) {
  uint32_t step = next_number();
  if (step >= MODEL_STEP_COUNT || step + 1 != next_step_plus_one) {
    /* A later step would read memory the earlier ones have not written. */
    reply_error("Steps run in order");
    return;
  }
  next_step_plus_one++;
  uint64_t before = port_ticks();
  model_run_step((int)step);
  print_ticks(port_ticks() - before);
}

/* Where `offset` into the arena lies: offsets count through the memories it is divided between.
 * Returns the memory, with the offset made its own and its size. */
static const uint8_t *arena_at(uint32_t *offset, uint32_t *size) {
#ifdef MODEL_ARENAS
  static const struct {
    const uint8_t *bytes;
    uint32_t size;
  } arenas[] = {MODEL_ARENAS};
  uint32_t index = 0;
  while (index + 1 < sizeof(arenas) / sizeof(*arenas) && *offset >= arenas[index].size) {
    *offset -= arenas[index++].size;
  }
  *size = arenas[index].size;
  return arenas[index].bytes;
#else
  (void)offset;
  *size = MODEL_ARENA_BYTES;
  return model_arena;
#endif
}

/* OFFSET BYTES AREA, inside the area; 0 when it is not, and the error has been printed. */
static const uint8_t *parse_range(uint32_t *count) {
  uint32_t offset = next_number();
  uint32_t size = 0;
  const uint8_t *bytes = 0;
  *count = next_number();
  const char *area = next_word();
  if (words_equal(area, "arena")) {
    bytes = arena_at(&offset, &size);
  } else if (words_equal(area, "in")) {
    bytes = (const uint8_t *)model_input();
    size = MODEL_INPUT_BYTES;
  } else if (words_equal(area, "out")) {
    bytes = (const uint8_t *)model_output();
    size = MODEL_OUTPUT_BYTES;
  }
  if (bytes != 0 && offset <= size && *count <= size - offset) return bytes + offset;
  reply_error("OFFSET BYTES in|arena|out, inside it");
  return 0;
}

static void print_crc(const uint8_t *bytes, uint32_t count) {
  print_text("e2-crc-");
  print_hex(crc32(bytes, count), 8);
  print_text("\r\n");
}

static void edge_crc(void) {
  uint32_t count;
  const uint8_t *bytes = parse_range(&count);
  if (bytes != 0) print_crc(bytes, count);
}

/* e2-data-LENGTH-HEX lines, then the checksum of all of it. */
static void print_bytes(const uint8_t *bytes, uint32_t count) {
  for (uint32_t done = 0; done < count;) {
    uint32_t length = count - done < READ_LINE_BYTES ? count - done : READ_LINE_BYTES;
    print_number("e2-data-", "-", length);
    while (length-- > 0) print_hex(bytes[done++], 2);
    print_text("\r\n");
  }
  print_crc(bytes, count);
}

static void edge_read(void) {
  uint32_t count;
  const uint8_t *bytes = parse_range(&count);
  if (bytes == 0) return;
  if (count > READ_LIMIT_BYTES) {
    reply_error("Reads 16384 at most");
  } else {
    print_bytes(bytes, count);
  }
}

static void edge_out(void) {
  print_bytes((const uint8_t *)model_output(), MODEL_OUTPUT_BYTES);
}

/* OFFSET HEX CRC: as db, but addressed and checked, so that a lost line is noticed at once. */
static void edge_load(void) {
  uint32_t crc = 0;
  uint32_t offset = next_number();
  char *bytes = next_word();
  char *sum = next_word();
  int32_t count = decode_hex(bytes);
  if (offset > MODEL_INPUT_BYTES || count < 0 ||
      (uint32_t)count > MODEL_INPUT_BYTES - offset || decode_hex(sum) != 4) {
    reply_error("OFFSET HEX CRC, in the input");
    return;
  }
  for (int index = 0; index < 4; index++) crc = crc << 8 | (uint8_t)sum[index];
  if (crc32((const uint8_t *)bytes, (uint32_t)count) != crc) {
    reply_error("Checksum differs");
    return;
  }
  store_input(offset, bytes, (uint32_t)count);
  print_number("e2-loaded-", "\r\n", offset + (uint32_t)count);
}

static void edge_stack(void) {
  const uint32_t *limit, *top, *word;
  port_stack(&limit, &top);
  if (limit == 0) {
    reply_error("Stack bounds unknown");
    return;
  }
  for (word = limit; word < top && *word == PORT_STACK_PAINT; word++) {
  }
  print_number("e2-stack-", "-of-", (uintptr_t)top - (uintptr_t)word);
  print_number("", "\r\n", (uintptr_t)top - (uintptr_t)limit);
}

void command_edge(void) {
  static const Command commands[] = {
      edge_info, edge_begin, edge_step, edge_run,   edge_crc,
      edge_read, edge_load,  edge_out,  edge_stack,
  };
  run_command("info begin step run crc read load out stack ", commands);
}
