/* Shared by the command handlers. The model's input and output lie in its arena (model_input(),
 * model_output() of model.h): an inference may overwrite the input, so a host loads it again before
 * each inference whose output it reads. */
#ifndef EDGECOMPRESS_RUNNER_H
#define EDGECOMPRESS_RUNNER_H

#include <stdint.h>

#include "model.h"

/* Raised whenever the meaning of an `edge` command or of its reply changes. */
#define EDGE_ABI_VERSION 2

/* Longest command, the closing % not counted. The MLPerf Tiny protocol needs 80. */
#define COMMAND_LIMIT 160

/* A handler takes the rest of its command with next_word and prints every reply but m-ready. */
typedef void (*Command)(void);

/* Runs the command the next word names: the one of `commands` at that name's place in `names`, each
 * of which ends with a space. */
void run_command(const char *names, const Command *commands);

/* e-[text]. */
void reply_error(const char *text);

/* Runs the model once on what lies in model_input(). */
void runner_infer(void);

void copy_bytes(void *to, const void *from, uint32_t count);

/* Copies into the model's input; the caller has checked that it fits. */
void store_input(uint32_t offset, const char *bytes, uint32_t count);

void command_db(void);
void command_infer(void);
void command_results(void);
void command_timestamp(void);
void command_edge(void);

#endif
