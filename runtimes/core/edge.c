/* What the benchmark protocol lacks: identity, per-step runs with their cost, checksums and bounded
 * reads of the model's memory, and the stack's high-water mark. Replies begin with e2-.
 *
 * A person types `edge info%`. A program that must not be fooled by the line sends each command as
 *
 *     edge #CRC SEQUENCE COMMAND...%
 *
 * CRC being the CRC-32 of "SEQUENCE COMMAND..." in 8 digits, lowest byte first. The reply then ends
 *
 *     e2-end-SEQUENCE-CRC
 *
 * whose CRC covers the reply from its first byte up to and with "e2-end-SEQUENCE-". Each SEQUENCE
 * is one more than the last; the same one again is the same command again (its reply was lost) and
 * runs nothing twice; any other is refused, which is how the host learns that the board was reset.
 * `sync` takes any and begins the count. */
#include "crc32.h"
#include "port.h"
#include "runner.h"
#include "text.h"

#define READ_LINE_BYTES 64

/* 0 before `edge begin`, then one more than the next step: all zeros costs no flash. */
static uint32_t next_step_plus_one;

/* The last framed command's; 0 before the first, and after a reset. */
static uint32_t last_sequence;

/* What the last run or step took, for the host that missed the reply. */
static uint64_t last_ticks;
static uint8_t ticks_are_this_commands;

#define COUNT_OF(table) (sizeof(table) / sizeof(*(table)))

#ifndef MODEL_ARENAS
#define MODEL_ARENAS {model_arena, MODEL_ARENA_BYTES}
#endif
static const struct {
  uint8_t *bytes;
  uint32_t size;
} arenas[] = {MODEL_ARENAS};

#ifdef PORT_REGIONS
static const struct {
  const char *name;
  uintptr_t address;
  uint32_t size;
  uint32_t is_flash;
} regions[] = {PORT_REGIONS};
#endif

static void print_region(const char *name, uintptr_t address, uintptr_t size) {
  print_between("e2-region-", " ", name);
  print_number("", " ", address);
  print_number("", "\r\n", size);
}

static void print_memory_map(void) {
  const uint32_t *limit, *top;
  for (uint32_t index = 0; index < COUNT_OF(arenas); index++) {
    print_region("arena", (uintptr_t)arenas[index].bytes, arenas[index].size);
  }
  port_stack(&limit, &top);
  print_region("stack", (uintptr_t)limit, (uintptr_t)top - (uintptr_t)limit);
#ifdef PORT_REGIONS
  for (uint32_t index = 0; index < COUNT_OF(regions); index++) {
    print_region(regions[index].name, regions[index].address, regions[index].size);
  }
#endif
}

#define QUOTED(value) #value
#define TEXT_OF(value) QUOTED(value)
#define LINE_OF(key, value) "e2-" key "-" value "\r\n"

static void edge_info(void) {
  uint8_t id[PORT_DEVICE_ID_LIMIT];
  print_text(LINE_OF("abi", TEXT_OF(EDGE_ABI_VERSION))
             LINE_OF("model", MODEL_HASH)
             LINE_OF("target", PORT_TARGET_NAME)
             LINE_OF("input_bytes", TEXT_OF(MODEL_INPUT_BYTES))
             LINE_OF("output_bytes", TEXT_OF(MODEL_OUTPUT_BYTES))
             LINE_OF("arena_bytes", TEXT_OF(MODEL_ARENA_BYTES))
             LINE_OF("steps", TEXT_OF(MODEL_STEP_COUNT))
             "e2-device_id-");
  uint32_t count = port_device_id(id);
  for (uint32_t index = 0; index < count; index++) print_hex(id[index], 2);
  print_between("\r\ne2-settings-", "\r\n", port_settings());
  print_between("e2-clock_source-", "\r\n", port_clock_source());
  print_number("e2-clock_hz-", "\r\n", port_clock_hz());
  print_number("e2-tick_hz-", "\r\n", port_tick_hz());
  print_memory_map();
}

#define WHOLE_MODEL 0xffffffffu

/* Runs and times one step or all of them, unless this very command has done so before. */
static void run_timed(uint32_t step) {
  if (!ticks_are_this_commands) {
    ticks_are_this_commands = 1;
    /* The host may wait long for what follows: it learns here that the command has arrived. */
    print_text("e2-started\r\n");
    port_flush();
    uint64_t before = port_ticks();
    if (step == WHOLE_MODEL) {
      runner_infer();
    } else {
      model_run_step((int)step);
    }
    last_ticks = port_ticks() - before;
  }
  print_number("e2-ticks-", "\r\n", last_ticks);
}

static void edge_run(void) { run_timed(WHOLE_MODEL); }

static void edge_begin(void) { next_step_plus_one = 1; }

static void edge_step(void) {
  uint32_t step = next_number();
  if (!ticks_are_this_commands) {
    if (step >= MODEL_STEP_COUNT || step + 1 != next_step_plus_one) {
      /* A later step would read memory the earlier ones have not written. */
      reply_error("Steps run in order");
      return;
    }
    next_step_plus_one++;
  }
  run_timed(step);
}

/* Where `offset` into the arena lies: offsets count through the memories it is divided between.
 * Returns the memory, with the offset made its own and its size. */
static const uint8_t *arena_at(uint32_t *offset, uint32_t *size) {
  uint32_t index = 0;
  while (index + 1 < COUNT_OF(arenas) && *offset >= arenas[index].size) {
    *offset -= arenas[index++].size;
  }
  *size = arenas[index].size;
  return arenas[index].bytes;
}

typedef struct {
  const uint8_t *bytes;
  uint32_t count;
} Range;

/* OFFSET BYTES AREA, inside the area: 0 when it is not, and the error has been printed. Address 0
 * is as good as any other: flash begins there on some boards. */
static int parse_range(Range *range) {
  uint32_t offset = next_number();
  uint32_t count = next_number();
  uint32_t size = 0;
  const uint8_t *bytes = 0;
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
  for (uint32_t index = 0; index < COUNT_OF(regions); index++) {
    if (regions[index].is_flash && words_equal(area, regions[index].name)) {
      bytes = (const uint8_t *)regions[index].address;
      size = regions[index].size;
    }
  }
#endif
  if (size == 0 || offset > size || count > size - offset) {
    reply_error("OFFSET BYTES in|arena|out, inside it");
    return 0;
  }
  range->bytes = bytes + offset;
  range->count = count;
  return 1;
}

static void edge_crc(void) {
  Range range;
  if (!parse_range(&range)) return;
  print_text("e2-crc-");
  print_hex(crc32(0, range.bytes, range.count), 8);
  print_text("\r\n");
}

/* e2-data-LENGTH-HEX lines. */
static void print_bytes(const uint8_t *bytes, uint32_t count) {
  for (uint32_t done = 0; done < count;) {
    uint32_t length = count - done < READ_LINE_BYTES ? count - done : READ_LINE_BYTES;
    print_number("e2-data-", "-", length);
    while (length-- > 0) print_hex(bytes[done++], 2);
    print_text("\r\n");
  }
}

static void edge_read(void) {
  Range range;
  if (parse_range(&range)) print_bytes(range.bytes, range.count);
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

/* 0 of 0 where the bounds are not known. */
static void edge_stack(void) {
  const uint32_t *limit, *top, *word;
  port_stack(&limit, &top);
  for (word = limit; word < top && *word == PORT_STACK_PAINT; word++) {
  }
  print_number("e2-stack-", "-of-", (uintptr_t)top - (uintptr_t)word);
  print_number("", "\r\n", (uintptr_t)top - (uintptr_t)limit);
}

static void edge_sync(void) {}

static void run_edge_command(void) {
  static const Command commands[] = {
      edge_info, edge_begin, edge_step, edge_run,   edge_crc,
      edge_read, edge_load,  edge_out,  edge_stack, edge_sync,
  };
  run_command("info begin step run crc read load out stack sync ", commands);
}

/* Whether `sum`, 8 hexadecimal digits, is the checksum of `text`, lowest byte first. */
static int checksum_holds(char *sum, const char *text) {
  uint32_t crc = 0;
  while (*text != 0) crc = crc32(crc, (const uint8_t *)text++, 1);
  /* Whatever the text, a CRC-32 that goes on over its own bytes ends in this constant. */
  return decode_hex(sum) == 4 && crc32(crc, (const uint8_t *)sum, 4) == 0x2144df1cu;
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
  if (ahead != 0) ticks_are_this_commands = 0;
  if (ahead <= 1 || words_equal(rest_of_line(), "sync")) {
    last_sequence = sequence;
    run_edge_command();
  } else {
    reply_error("Out of sequence");
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
    reply_error("Out of sequence");
  } else {
    ticks_are_this_commands = 0;
    run_edge_command();
  }
}
