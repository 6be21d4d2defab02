/* What the benchmark protocol lacks: identity, per-step runs with their cost, checksums and bounded
 * reads of the model's memory, and the stack's high-water mark. Replies begin with e2-.
 *
 * A person types `edge info%`. A program that must not be fooled by the line sends each command as
 *
 *     edge #CRC SEQUENCE COMMAND...%
 *
 * CRC being the CRC-32 of "SEQUENCE COMMAND..." in 8 digits, and gets one more line at the end,
 *
 *     e2-end-SEQUENCE-CRC
 *
 * whose CRC covers the reply from its first byte up to and with "e2-end-SEQUENCE-". Each SEQUENCE
 * is one more than the last; the same one again is the same command again (its reply was lost) and
 * runs nothing twice; any other is refused, which is how the host learns that the board was reset.
 * `sync N`, with SEQUENCE 0, makes N the last one. */
#include "crc32.h"
#include "port.h"
#include "runner.h"
#include "text.h"

#define READ_LINE_BYTES 64
#define READ_LIMIT_BYTES 16384

/* 0 before `edge begin`, then one more than the next step: all zeros costs no flash. */
static uint32_t next_step_plus_one;

/* The last framed command's; 0 before the first, and after a reset. */
static uint32_t last_sequence;

/* What the last run or step took, for the host that missed the reply. */
static uint64_t last_ticks;
static uint8_t ticks_are_this_commands;

#ifdef PORT_REGIONS
static const struct {
  const char *name;
  uintptr_t address;
  uint32_t size;
  uint32_t is_flash;
} regions[] = {PORT_REGIONS};
#define REGION_COUNT (sizeof(regions) / sizeof(*regions))
#endif

static void print_info_text(const char *key, const char *value) {
  print_text("e2-info-");
  print_text(key);
  print_text(value);
}

static void print_info(const char *key, uintptr_t value) {
  print_info_text(key, "");
  print_number("", "]\r\n", value);
}

static void print_memory_map(void) {
  const uint32_t *limit, *top;
  print_info("arena_address-[", (uintptr_t)model_arena);
  port_stack(&limit, &top);
  print_info("stack_address-[", (uintptr_t)limit);
  print_info("stack_bytes-[", (uintptr_t)top - (uintptr_t)limit);
#ifdef PORT_REGIONS
  for (uint32_t index = 0; index < REGION_COUNT; index++) {
    print_info_text("region-[", regions[index].name);
    print_number(" ", " ", regions[index].address);
    print_number("", "]\r\n", regions[index].size);
  }
#endif
}

static void edge_info(void) {
  uint8_t id[PORT_DEVICE_ID_LIMIT];
  print_info("abi-[", EDGE_ABI_VERSION);
  print_text("e2-info-model-[" MODEL_HASH "]\r\ne2-info-target-[" PORT_TARGET_NAME "]\r\n");
  print_info_text("device_id-[", "");
  uint32_t count = port_device_id(id);
  for (uint32_t index = 0; index < count; index++) print_hex(id[index], 2);
  print_text("]\r\n");
  print_info_text("settings-[", port_settings());
  print_text("]\r\n");
  print_info_text("clock_source-[", port_clock_source());
  print_text("]\r\n");
  print_info("clock_hz-[", port_clock_hz());
  print_info("tick_hz-[", port_tick_hz());
  print_info("input_bytes-[", MODEL_INPUT_BYTES);
  print_info("output_bytes-[", MODEL_OUTPUT_BYTES);
  print_info("arena_bytes-[", MODEL_ARENA_BYTES);
  print_info("steps-[", MODEL_STEP_COUNT);
  print_memory_map();
}

/* The host may wait long for what follows: it learns here that the command has arrived. */
static uint64_t announce(void) {
  print_text("e2-started\r\n");
  port_flush();
  ticks_are_this_commands = 1;
  return port_ticks();
}

static void print_ticks(void) { print_number("e2-ticks-", "\r\n", last_ticks); }

static void edge_run(void) {
  if (!ticks_are_this_commands) {
    uint64_t before = announce();
    runner_infer();
    last_ticks = port_ticks() - before;
  }
  print_ticks();
}

static void edge_begin(void) {
  next_step_plus_one = 1;
  print_text("e2-begin\r\n");
}

static void edge_step(void) {
  if (!ticks_are_this_commands) {
    uint32_t step = next_number();
    if (step >= MODEL_STEP_COUNT || step + 1 != next_step_plus_one) {
      /* A later step would read memory the earlier ones have not written. */
      reply_error("Steps run in order");
      return;
    }
    next_step_plus_one++;
    uint64_t before = announce();
    model_run_step((int)step);
    last_ticks = port_ticks() - before;
  }
  print_ticks();
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
#ifdef PORT_REGIONS
  /* RAM is left out: a bank may have no clock, and reading it would be a bus fault. */
  for (uint32_t index = 0; index < REGION_COUNT; index++) {
    if (regions[index].is_flash && words_equal(area, regions[index].name)) {
      bytes = (const uint8_t *)regions[index].address;
      size = regions[index].size;
    }
  }
#endif
  if (bytes != 0 && offset <= size && *count <= size - offset) return bytes + offset;
  reply_error("OFFSET BYTES in|arena|out, inside it");
  return 0;
}

static void print_crc(const uint8_t *bytes, uint32_t count) {
  print_text("e2-crc-");
  print_hex(crc32(0, bytes, count), 8);
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

/* OFFSET HEX: as db, but addressed. */
static void edge_load(void) {
  uint32_t offset = next_number();
  char *bytes = next_word();
  int32_t count = decode_hex(bytes);
  if (offset > MODEL_INPUT_BYTES || count < 0 ||
      (uint32_t)count > MODEL_INPUT_BYTES - offset) {
    reply_error("OFFSET HEX, in the input");
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

static void edge_sync(void) {
  last_sequence = next_number();
  print_number("e2-sync-", "\r\n", last_sequence);
}

static void run_edge_command(void) {
  static const Command commands[] = {
      edge_info, edge_begin, edge_step, edge_run,   edge_crc,
      edge_read, edge_load,  edge_out,  edge_stack, edge_sync,
  };
  run_command("info begin step run crc read load out stack sync ", commands);
}

/* Whether `sum`, 8 hexadecimal digits, is the checksum of `text`. */
static int checksum_holds(char *sum, const char *text) {
  const char *end = text;
  uint32_t crc = 0;
  while (*end != 0) end++;
  if (decode_hex(sum) != 4) return 0;
  for (int index = 0; index < 4; index++) crc = crc << 8 | (uint8_t)sum[index];
  return crc32(0, (const uint8_t *)text, (uint32_t)(end - text)) == crc;
}

static void run_framed(void) {
  char *sum = next_word() + 1;
  if (!checksum_holds(sum, rest_of_line())) {
    reply_error("Checksum differs");
    return;
  }
  printed_crc = 0;
  uint32_t sequence = next_number();
  uint32_t ahead = sequence - last_sequence;
  if (ahead != 0 || sequence == 0) ticks_are_this_commands = 0;
  if (ahead <= 1 || sequence == 0) {
    if (sequence != 0) last_sequence = sequence;
    run_edge_command();
  } else {
    reply_error("Sequence");
  }
  print_number("e2-end-", "-", sequence);
  print_hex(printed_crc, 8);
  print_text("\r\n");
}

void command_edge(void) {
  if (*rest_of_line() == '#') {
    run_framed();
  } else if (last_sequence != 0) {
    /* What the line has left of a framed command must not run as another. */
    reply_error("Checksums are on until reset");
  } else {
    ticks_are_this_commands = 0;
    run_edge_command();
  }
}
