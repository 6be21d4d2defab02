#ifndef EDGECOMPRESS_CRC32_H
#define EDGECOMPRESS_CRC32_H

#include <stdint.h>

/* CRC-32 of IEEE 802.3 (reflected 0xEDB88320), the one zlib.crc32 computes. `crc` is that of what
 * came before, 0 at the start. */
uint32_t crc32(uint32_t crc, const uint8_t *bytes, uint32_t count);

#endif
