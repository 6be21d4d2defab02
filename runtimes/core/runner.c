/* Reads commands that end with %, answers each, and says m-ready: the MLPerf Tiny DUT protocol
 * (EEMBC EnergyRunner, performance mode) and the `edge` commands beside it. Written for size: the
 * runner is part of what has to fit. */
#include "runner.h"

#include "port.h"
#include "text.h"

#ifndef MODEL_NAME
#define MODEL_NAME "model"
#endif

void reply_error(const char *text) { print_between("e-[", "]\r\n", text); }

void runner_infer(void) { (void)model_run(model_input(), model_output()); }

void copy_bytes(void *to, const void *from, uint32_t count) {
  uint8_t *target = to;
  const uint8_t *source = from;
  while (count-- > 0) *target++ = *source++;
}

void store_input(uint32_t offset, const char *bytes, uint32_t count) {
  copy_bytes((uint8_t *)model_input() + offset, bytes, count);
}

static void print_ready(void) {
  print_text("m-ready\r\n");
  port_flush();
}

static void command_name(void) {
  print_text("m-name-dut-[edgecompress]\r\n");
}

static void command_profile(void) {
  print_text("m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[" MODEL_NAME "]\r\n");
}

static const char names[] = "name timestamp profile db infer results help edge ";

static void command_help(void) { print_between("m-commands-[", "]\r\n", names); }

static const Command commands[] = {
    command_name,  command_timestamp, command_profile, command_db,
    command_infer, command_results,   command_help,    command_edge,
};

void run_command(const char *name, const Command *command) {
  const char *word = next_word();
  for (; *name != 0; command++) {
    const char *letter = word;
    while (*letter != 0 && *letter == *name) {
      letter++;
      name++;
    }
    if (*letter == 0 && *name == ' ') {
      (*command)();
      return;
    }
    while (*name++ != ' ') {
    }
  }
  reply_error("Unknown command");
}

/* Takes the next command into `line`. Returns 0, 1 when it was too long and has been skipped
 * whole, or -1 when the console is gone. Line ends and other control characters are ignored: some
 * hosts send them after the %; so are spaces in front, which leaves a lone % an empty line. */
static int read_command(char *line) {
  uint32_t count = 0, length = 0;
  for (;;) {
    int byte = port_getc();
    if (byte < 0) return -1;
    if (byte == '%') break;
    if (byte < ' ') continue;
    length++;
    if (length <= COMMAND_LIMIT && (count != 0 || byte != ' ')) line[count++] = (char)byte;
  }
  line[count] = 0;
  return length > COMMAND_LIMIT;
}

int main(void) {
  static char line[COMMAND_LIMIT + 1];
  port_init();
  print_text("m-timestamp-mode-performance\r\n");
  command_timestamp();
  print_text("m-init-done\r\n");
  for (;;) {
    print_ready();
    int state = read_command(line);
    if (state < 0) return 0;
    if (state != 0) {
      reply_error("Command too long");
    } else if (line[0] != 0) {
      /* A lone % is how a host finds out whether anyone is there. */
      start_words(line);
      run_command(names, commands);
    }
  }
}
