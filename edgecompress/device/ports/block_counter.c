/* Counts executed Thumb or RISC-V instructions at native speed: the hook Unicorn calls at each basic block.
 * While a watched function runs it also counts each block's entries and the times it was left by a
 * taken branch. Built once per machine by counting.py; no C library, all state in the caller's
 * structure. */
#include <stdint.h>

#define SLOTS 65536u
#define PROBES 32u
#define CHUNK 64u
#define WATCHED 2u

typedef int (*read_memory_t)(void *engine, uint64_t address, void *bytes, uint64_t size);
typedef int (*read_register_t)(void *engine, int which, void *value);

typedef struct {
  uint32_t address;
  uint32_t size;
  uint32_t instructions;
  uint64_t entries; /* while a watched function ran */
  uint64_t taken;   /* of these, left to another address than the next one */
} block_t;

/* counting.py mirrors this down to `lost`. */
typedef struct {
  uint64_t instructions;
  read_memory_t read_memory;
  read_register_t read_register;
  int32_t link_register; /* Unicorn's number of it */
  uint32_t is_riscv;
  uint32_t watched[WATCHED];
  uint32_t recording;
  uint32_t return_address;
  uint32_t lost; /* blocks the table had no room for */
  block_t *previous;
  block_t blocks[SLOTS];
} counter_t;

uint32_t counter_bytes(void) { return sizeof(counter_t); }

/* A Thumb instruction is two halfwords when its first begins 0b11101, 0b11110 or 0b11111
 * (Armv7-M ARM A5.1), a RISC-V one when its first ends in 0b11 (unprivileged ISA 1.5). */
static uint32_t instruction_bytes(const counter_t *counter, const uint8_t *first) {
  if (counter->is_riscv) return (first[0] & 3) == 3 ? 4 : 2;
  return first[1] >> 3 >= 0x1d ? 4 : 2;
}

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
    position += instruction_bytes(counter, bytes + position % CHUNK);
    count++;
  }
  return count;
}

/* The block's entry in the table, made when it is new; 0 when its neighbourhood is full. */
static block_t *find_block(counter_t *counter, void *engine, uint32_t address, uint32_t size) {
  uint32_t slot = (address >> 1) * 2654435761u >> 16;
  for (uint32_t probe = 0; probe < PROBES; probe++) {
    block_t *block = &counter->blocks[(slot + probe) % SLOTS];
    if (block->size == 0) {
      block->address = address;
      block->instructions = count_instructions(counter, engine, address, size);
      block->size = size;
    }
    if (block->address == address && block->size == size) return block;
  }
  return 0;
}

/* A watched function's window lasts until the address it returns to is reached. */
static void record(counter_t *counter, void *engine, uint32_t address, block_t *block) {
  if (!counter->recording) {
    uint32_t link = 0, watched = 0;
    for (uint32_t index = 0; index < WATCHED; index++) watched |= counter->watched[index] == address;
    if (!watched || counter->read_register(engine, counter->link_register, &link) != 0) return;
    counter->recording = 1;
    counter->return_address = link & ~1u;
  } else {
    block_t *previous = counter->previous;
    if (previous != 0 && previous->address + previous->size != address) previous->taken++;
    if (address == counter->return_address) {
      counter->recording = 0;
      counter->previous = 0;
      return;
    }
  }
  if (block != 0) {
    block->entries++;
  } else {
    counter->lost++;
  }
  counter->previous = block;
}

void count_block(void *engine, uint64_t address, uint32_t size, void *state) {
  counter_t *counter = state;
  block_t *block = find_block(counter, engine, (uint32_t)address, size);
  /* A crowded table costs time, never an instruction. */
  counter->instructions +=
      block != 0 ? block->instructions
                 : count_instructions(counter, engine, (uint32_t)address, size);
  record(counter, engine, (uint32_t)address, block);
}

/* Copies up to `limit` recorded blocks to `out` and starts all of them again from zero. */
uint32_t take_blocks(counter_t *counter, block_t *out, uint32_t limit) {
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < SLOTS && count < limit; slot++) {
    block_t *block = &counter->blocks[slot];
    if (block->entries == 0) continue;
    out[count++] = *block;
    block->entries = block->taken = 0;
  }
  return count;
}
