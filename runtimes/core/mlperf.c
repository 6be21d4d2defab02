/* The benchmark's own commands: db, infer, results, timestamp. Replies are those of the reference
 * firmware (EEMBC EnergyRunner, mlcommons/tiny benchmark/api), so the genuine runner can drive this
 * image in performance and accuracy mode. `db` fills the model's input with the bytes as they are:
 * where the reference converts them (ic01 and vww01: minus 128; ad01: from float), the data set's
 * files have to be converted to the int8 the model takes. */
#include "port.h"
#include "runner.h"
#include "text.h"

#ifdef MODEL_OUTPUT_ZERO_POINT
#define OUTPUT_ZERO_POINT MODEL_OUTPUT_ZERO_POINT
#else
#define OUTPUT_ZERO_POINT 0
#endif
#ifdef MODEL_OUTPUT_SCALE
#define OUTPUT_SCALE MODEL_OUTPUT_SCALE
#else
#define OUTPUT_SCALE 1.0
#endif

#define COUNT_LIMIT 0x7fffffffu

/* Thousandths of a real unit per quantized step, with 20 fraction bits. A constant: no floating
 * point instruction is left of it, which matters on a core without an FPU. */
static const int64_t thousandths_per_step_q20 =
    (int64_t)((double)(OUTPUT_SCALE) * 1000.0 * 1048576.0 + 0.5);

static uint32_t expected_bytes;
static uint32_t loaded_bytes;

void command_timestamp(void) {
  uint32_t hz = port_tick_hz();
  uint64_t seconds = port_ticks();
  /* Seconds apart, so that ticks * 1000000 cannot overflow. */
  uint64_t fraction = (uint64_t)divide(&seconds, hz) * 1000000u;
  (void)divide(&fraction, hz);
  print_number("m-lap-us-", "\r\n", seconds * 1000000u + fraction);
}

static void db_load(void) {
  uint32_t count = next_number();
  if (count - 1 >= MODEL_INPUT_BYTES) {
    reply_error("db load BYTES, of the input");
    return;
  }
  expected_bytes = count;
  loaded_bytes = 0;
  print_number("m-[Expecting ", " bytes]\r\n", count);
}

static void db_bytes(char *digits) {
  uint32_t missing = expected_bytes - loaded_bytes;
  if (missing == 0) {
    reply_error("db load first");
    return;
  }
  /* Decoded whole before the first byte is stored: a damaged line changes nothing. */
  int32_t count = decode_hex(digits);
  if (count <= 0) {
    reply_error(count == HEX_ODD ? "Insufficent number of hex digits" : "Invalid hex digit");
    return;
  }
  if ((uint32_t)count < missing) missing = (uint32_t)count;
  store_input(loaded_bytes, digits, missing);
  loaded_bytes += missing;
  if (loaded_bytes == expected_bytes) print_text("m-load-done\r\n");
}

void command_db(void) {
  char *word = next_word();
  if (words_equal(word, "load")) {
    db_load();
  } else {
    db_bytes(word);
  }
}

static int64_t result_thousandths(uint32_t index) {
  /* The type is the model's; the branch not taken disappears at compile time. */
  if (sizeof(model_output_t) == sizeof(float)) {
    float value = ((const float *)(const void *)model_output())[index];
    return (int64_t)(value * 1000.0f + (value < 0 ? -0.5f : 0.5f));
  }
  int64_t steps = (int64_t)model_output()[index] - (OUTPUT_ZERO_POINT);
  return (steps * thousandths_per_step_q20 + (1 << 19)) >> 20;
}

void command_results(void) {
  uint32_t count = MODEL_OUTPUT_BYTES / sizeof(model_output_t);
  print_text("m-results-[");
  for (uint32_t index = 0; index < count; index++) {
    if (index != 0) print_byte(',');
    print_thousandths(result_thousandths(index));
  }
  print_text("]\r\n");
}

/* Unless MODEL_INPUT_PRESERVED is 1 an inference overwrites its input, so only the first of many
 * runs on what was loaded. The time is the same; the first one's results are kept and put back at
 * the end. A larger output is not worth the memory: there `infer 1 0` gives the meaningful ones. */
#if !MODEL_INPUT_PRESERVED && MODEL_OUTPUT_BYTES <= 64
static uint8_t first_output[MODEL_OUTPUT_BYTES];

static void keep_output(void) { copy_bytes(first_output, model_output(), MODEL_OUTPUT_BYTES); }

static void put_output_back(void) { copy_bytes(model_output(), first_output, MODEL_OUTPUT_BYTES); }
#else
static void keep_output(void) {}
static void put_output_back(void) {}
#endif

static void infer_many(uint32_t count, int is_first) {
  while (count-- > 0) {
    runner_infer();
    if (is_first) keep_output();
    is_first = 0;
    /* Keeps the wide clock right over a run longer than one wrap of the timer. */
    (void)port_ticks();
  }
}

void command_infer(void) {
  uint32_t count = 1, warmup = 10;
  const char *word = next_word();
  if (*word != 0) {
    count = parse_unsigned(word);
    word = next_word();
    if (*word != 0) warmup = parse_unsigned(word);
  }
  if (count - 1 >= COUNT_LIMIT || warmup > COUNT_LIMIT) {
    reply_error("Iterations must be >0");
    return;
  }
  print_number("m-warmup-start-", "\r\n", warmup);
  infer_many(warmup, 1);
  print_number("m-warmup-done\r\nm-infer-start-", "\r\n", count);
  command_timestamp();
  infer_many(count, warmup == 0);
  command_timestamp();
  put_output_back();
  print_text("m-infer-done\r\n");
  command_results();
}
