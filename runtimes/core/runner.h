/* Shared by the command handlers. The model's input and output lie in its arena (model_input(),
 * model_output() of model.h): an inference may overwrite the input, so a host loads it again before
 * each inference whose output it reads. */
#ifndef EDGECOMPRESS_RUNNER_H
#define EDGECOMPRESS_RUNNER_H

#include <stdint.h>

#include "model.h"

/* Raised whenever the meaning of an `edge` command or of its reply changes. */
#define EDGE_ABI_VERSION 1

/* Longest command, the closing % not counted. The MLPerf Tiny protocol needs 80. */
#define COMMAND_LIMIT 160

/* A handler takes the rest of its command's line and prints every reply but m-ready. */
typedef struct {
  const char *name;
  void (*run)(char *arguments);
} Command;

/* Runs the command the line begins with; the list ends with a name of 0. */
void run_command(const Command *commands, char *line);

/* e-[text]. */
void reply_error(const char *text);

/* Runs the model once on what lies in model_input(). */
void runner_infer(void);

/* Copies into the model's input; the caller has checked that it fits. */
void store_input(uint32_t offset, const char *bytes, uint32_t count);

void command_db(char *arguments);
void command_infer(char *arguments);
void command_results(char *arguments);
void command_timestamp(char *arguments);
void command_edge(char *arguments);

#endif
