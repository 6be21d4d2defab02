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

/* e-[text] or e-[textdetail]. */
void reply_error(const char *text, const char *detail);

/* Runs the model once on what lies in model_input(). */
void runner_infer(void);

/* Each takes the rest of its command's line and prints every reply but m-ready. */
void command_db(char *arguments);
void command_infer(char *arguments);
void command_results(void);
void command_timestamp(void);
void command_edge(char *arguments);

#endif
