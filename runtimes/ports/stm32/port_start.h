/* Called by the start-up code before anything else, while there are no variables yet: the clock to
 * its rated speed, memories and caches on. */
#ifndef EDGECOMPRESS_PORT_START_H
#define EDGECOMPRESS_PORT_START_H

void port_start(void);

#endif
