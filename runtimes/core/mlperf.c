/* The benchmark's own commands: db, infer, results, timestamp. Replies are those of the reference
 * firmware (EEMBC EnergyRunner, mlperf tiny monitor), so the genuine runner can drive this image. */
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

/* Thousandths of a real unit per quantized step, with 20 fraction bits. A constant: no floating
 * point instruction is left of it, which matters on a core without an FPU. */
static const int64_t thousandths_per_step_q20 =
    (int64_t)((double)(OUTPUT_SCALE) * 1000.0 * 1048576.0 + 0.5);

static uint32_t expected_bytes;
static uint32_t loaded_bytes;

void command_timestamp(void) {
  print_text("m-lap-us-");
  /* Seconds apart, so that ticks * 1000000 cannot overflow. */
  uint64_t ticks = port_ticks();
  uint32_t hz = port_tick_hz();
  print_unsigned(ticks / hz * 1000000u + ticks % hz * 1000000u / hz);
  print_line_end();
}

static void db_load(const char *word) {
  uint32_t count;
  if (word == 0) {
    reply_error("Command 'db load' requires the # of bytes", "");
  } else if (parse_unsigned(word, MODEL_INPUT_BYTES, &count) != 0) {
    reply_error("Supplied buffer size is not a number up to the input's size: ", word);
  } else if (count == 0) {
    reply_error("Command 'db load' must be >0 bytes", "");
  } else {
    expected_bytes = count;
    loaded_bytes = 0;
    print_text("m-[Expecting ");
    print_unsigned(count);
    print_text(" bytes]\r\n");
  }
}

static void db_bytes(const char *digits) {
  uint8_t *input = (uint8_t *)model_input();
  uint32_t count = 0;
  if (loaded_bytes >= expected_bytes) {
    reply_error("Command 'db load' must come first", "");
    return;
  }
  while (digits[count] != 0) count++;
  if (count % 2 != 0) {
    reply_error("Insufficent number of hex digits", "");
    return;
  }
  /* Checked whole before the first byte is stored: a damaged line changes nothing. */
  for (uint32_t index = 0; index < count; index += 2) {
    if (parse_hex_byte(digits + index) < 0) {
      reply_error("Invalid hex digit in ", digits);
      return;
    }
  }
  for (uint32_t index = 0; index < count && loaded_bytes < expected_bytes; index += 2) {
    input[loaded_bytes++] = (uint8_t)parse_hex_byte(digits + index);
  }
  if (loaded_bytes == expected_bytes) print_text("m-load-done\r\n");
}

void command_db(char *arguments) {
  char *word = next_word(&arguments);
  if (word == 0) {
    reply_error("Command 'db' requires a subcommand", "");
  } else if (words_equal(word, "load")) {
    db_load(next_word(&arguments));
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
    if (index != 0) port_putc(',');
    print_thousandths(result_thousandths(index));
  }
  print_text("]\r\n");
}

/* Without MODEL_INPUT_PRESERVED an inference overwrites its input, so only the first of many runs
 * on what was loaded. The time is the same; the results of `infer 1 0` are the meaningful ones. */
static void infer_many(uint32_t count) {
  while (count-- > 0) {
    runner_infer();
    /* Keeps the wide clock right over a run longer than one wrap of the timer. */
    (void)port_ticks();
  }
}

void command_infer(char *arguments) {
  uint32_t count = 1, warmup = 10;
  char *word = next_word(&arguments);
  if (word != 0) {
    if (parse_unsigned(word, 0x7fffffffu, &count) != 0 || count == 0) {
      reply_error("Inference iterations must be >0: ", word);
      return;
    }
    word = next_word(&arguments);
    if (word != 0 && parse_unsigned(word, 0x7fffffffu, &warmup) != 0) {
      reply_error("Warmup iterations must be a number: ", word);
      return;
    }
  }
  print_text("m-warmup-start-");
  print_unsigned(warmup);
  print_line_end();
  infer_many(warmup);
  print_text("m-warmup-done\r\nm-infer-start-");
  print_unsigned(count);
  print_line_end();
  command_timestamp();
  infer_many(count);
  command_timestamp();
  print_text("m-infer-done\r\n");
  command_results();
}
