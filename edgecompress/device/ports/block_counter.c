/* Counts executed Thumb instructions at native speed: the hook Unicorn calls at each basic block.
 * Built once per machine by counting.py; no C library, all state in the caller's structure. */
#include <stdint.h>

#define SLOTS 65536u
#define PROBES 32u
#define CHUNK 64u

typedef int (*read_memory_t)(void *engine, uint64_t address, void *bytes, uint64_t size);

typedef struct {
  uint32_t address;
  uint32_t size;
  uint32_t instructions;
} block_t;

/* counting.py mirrors the first two fields. */
typedef struct {
  uint64_t instructions;
  read_memory_t read_memory;
  block_t blocks[SLOTS];
} counter_t;

uint32_t counter_bytes(void) { return sizeof(counter_t); }

/* A Thumb instruction is two halfwords when its first begins 0b11101, 0b11110 or 0b11111
 * (Armv7-M ARM A5.1). */
static uint32_t count_instructions(counter_t *counter, void *engine, uint32_t address,
                                   uint32_t size) {
  uint8_t bytes[CHUNK];
  uint32_t count = 0, position = 0, chunk = 0xffffffffu;
  while (position < size) {
    if (position / CHUNK != chunk) {
      uint32_t start, length;
      chunk = position / CHUNK;
      start = chunk * CHUNK;
      length = size - start < CHUNK ? size - start : CHUNK;
      if (counter->read_memory(engine, address + start, bytes, length) != 0) return count;
    }
    position += bytes[position % CHUNK + 1] >> 3 >= 0x1d ? 4 : 2;
    count++;
  }
  return count;
}

void count_block(void *engine, uint64_t address, uint32_t size, void *state) {
  counter_t *counter = state;
  uint32_t slot = ((uint32_t)address >> 1) * 2654435761u >> 16;
  for (uint32_t probe = 0; probe < PROBES; probe++) {
    block_t *block = &counter->blocks[(slot + probe) % SLOTS];
    if (block->size == 0) {
      block->address = (uint32_t)address;
      block->instructions = count_instructions(counter, engine, (uint32_t)address, size);
      block->size = size;
    }
    if (block->address == (uint32_t)address && block->size == size) {
      counter->instructions += block->instructions;
      return;
    }
  }
  /* A crowded table costs time, never a count. */
  counter->instructions += count_instructions(counter, engine, (uint32_t)address, size);
}
