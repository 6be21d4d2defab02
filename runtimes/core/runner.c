/* Reads commands that end with %, answers each, and says m-ready: the MLPerf Tiny DUT protocol
 * (EEMBC EnergyRunner, performance mode) and the `edge` commands beside it. */
#include "runner.h"

#include "port.h"
#include "text.h"

#ifndef MODEL_NAME
#define MODEL_NAME "model"
#endif

void reply_error(const char *text, const char *detail) {
  print_text("e-[");
  print_text(text);
  print_text(detail);
  print_text("]\r\n");
}

void runner_infer(void) { (void)model_run(model_input(), model_output()); }

static void print_ready(void) {
  print_text("m-ready\r\n");
  port_flush();
}

static void command_help(void) {
  print_text("m-commands-[name timestamp profile db infer results help edge]\r\n");
}

static void command_profile(void) {
  print_text("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\n");
  print_text("m-model-[" MODEL_NAME "]\r\n");
}

static void run_command(char *line) {
  char *word = next_word(&line);
  if (word == 0) {
    /* A lone % is how a host finds out whether anyone is there. */
  } else if (words_equal(word, "name")) {
    print_text("m-name-dut-[edgecompress]\r\n");
  } else if (words_equal(word, "timestamp")) {
    command_timestamp();
  } else if (words_equal(word, "profile")) {
    command_profile();
  } else if (words_equal(word, "db")) {
    command_db(line);
  } else if (words_equal(word, "infer")) {
    command_infer(line);
  } else if (words_equal(word, "results")) {
    command_results();
  } else if (words_equal(word, "help")) {
    command_help();
  } else if (words_equal(word, "edge")) {
    command_edge(line);
  } else {
    reply_error("Unknown command: ", word);
  }
  print_ready();
}

/* Takes the next command into `line`. Returns 0, 1 when it was too long and has been skipped
 * whole, or -1 when the console is gone. Line ends and other control characters are ignored: some
 * hosts send them after the %. */
static int read_command(char *line) {
  uint32_t count = 0;
  int too_long = 0;
  for (;;) {
    int byte = port_getc();
    if (byte < 0) return -1;
    if (byte == '%') break;
    if (byte < ' ') continue;
    /* Only printable characters are ever echoed back. */
    if (byte > '~') byte = '?';
    if (count < COMMAND_LIMIT) {
      line[count++] = (char)byte;
    } else {
      too_long = 1;
    }
  }
  line[count] = 0;
  return too_long;
}

int main(void) {
  static char line[COMMAND_LIMIT + 1];
  int state;
  port_init();
  print_text("m-timestamp-mode-performance\r\n");
  command_timestamp();
  print_text("m-init-done\r\n");
  print_ready();
  while ((state = read_command(line)) >= 0) {
    if (state == 0) {
      run_command(line);
    } else {
      reply_error("Command longer than the buffer, skipped", "");
      print_ready();
    }
  }
  return 0;
}
