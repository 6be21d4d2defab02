/* Shared by the command handlers: the model's input and output memory, and the error reply. */
#ifndef EDGECOMPRESS_RUNNER_H
#define EDGECOMPRESS_RUNNER_H

#include <stdint.h>

#include "model.h"

/* Raised whenever the meaning of an `edge` command or of its reply changes. */
#define EDGE_ABI_VERSION 1

/* Longest command, the closing % not counted. The MLPerf Tiny protocol needs 80. */
#define COMMAND_LIMIT 160

/* The caller's memory of the C API: kernels read and write it directly. */
extern model_input_t runner_input[];
extern model_output_t runner_output[];

/* e-[text] or e-[textdetail]. */
void reply_error(const char *text, const char *detail);

/* Runs the model once on runner_input. */
void runner_infer(void);

/* Each takes the rest of its command's line and prints every reply but m-ready. */
void command_db(char *arguments);
void command_infer(char *arguments);
void command_results(void);
void command_timestamp(void);
void command_edge(char *arguments);

#endif
