/* See pic.h. */
#include "pic.h"

#include <assert.h>

#include "lib/check.h"

enum { MASTER, SLAVE, CHIP_LINES = 8, CASCADE_LINE = 2 };
enum { COMMAND_PORT = 0x20, SLAVE_DISTANCE = 0x80, DATA = 1 };
enum { MASTER_VECTORS = 8, SLAVE_VECTORS = 0x70 };
/* The first initialisation word, and operation command words 2 and 3. */
enum { WORD_1 = 0x10, WORD_1_WANTS_4 = 1, WORD_4_ENDS_ITSELF = 2, VECTOR_BITS = 0xf8 };
enum { IS_COMMAND_3 = 8, READ_REQUEST = 2, READ_SERVICE = 3, READ_BITS = 3 };
enum { END_BITS = 0xe0, END_HIGHEST = 0x20, END_SPECIFIC = 0x60, LINE_BITS = 7 };

void pic_reset(struct pic *pic)
{
	*pic = (struct pic){ .chip = { { .vector_base = MASTER_VECTORS },
				       { .vector_base = SLAVE_VECTORS } } };
}

/* The lowest line of these; CHIP_LINES: none. */
static unsigned first(uint8_t lines) { return lines ? (unsigned)__builtin_ctz(lines) : CHIP_LINES; }

static uint8_t bit_of(unsigned line) { return (uint8_t)(1u << line); }

/* The line that is next; CHIP_LINES: none. */
static unsigned next_line(const struct pic_chip *chip)
{
	unsigned line = first(chip->request & (uint8_t)~chip->mask);

	return line < first(chip->service) ? line : CHIP_LINES;
}

void check_pic(const struct pic *pic)
{
	bool asks = next_line(&pic->chip[SLAVE]) < CHIP_LINES;

	assert(asks == ((pic->chip[MASTER].request & bit_of(CASCADE_LINE)) != 0));
	for (unsigned n = 0; n < PIC_CHIPS; n++)
		assert(pic->chip[n].init_step <= 4 && !(pic->chip[n].vector_base & ~VECTOR_BITS));
}

/* The slave's output is a line of the master. */
static void cascade(struct pic *pic)
{
	struct pic_chip *master = &pic->chip[MASTER];

	if (next_line(&pic->chip[SLAVE]) < CHIP_LINES)
		master->request |= bit_of(CASCADE_LINE);
	else
		master->request &= (uint8_t)~bit_of(CASCADE_LINE);
	CHECK(check_pic(pic));
}

void pic_set_line(struct pic *pic, unsigned line, bool high)
{
	struct pic_chip *chip = &pic->chip[line / CHIP_LINES];
	uint8_t bit = bit_of(line % CHIP_LINES);

	assert(line < PIC_LINES);
	if (high && !(chip->lines & bit))
		chip->request |= bit;
	chip->lines = high ? chip->lines | bit : chip->lines & (uint8_t)~bit;
	cascade(pic);
}

bool pic_has_interrupt(const struct pic *pic)
{
	return next_line(&pic->chip[MASTER]) < CHIP_LINES;
}

/* The line goes from requested to in service. */
static unsigned acknowledge(struct pic_chip *chip)
{
	unsigned line = next_line(chip);

	assert(line < CHIP_LINES);
	chip->request &= (uint8_t)~bit_of(line);
	if (!chip->ends_by_itself)
		chip->service |= bit_of(line);
	return line;
}

int pic_take(struct pic *pic)
{
	struct pic_chip *chip = &pic->chip[MASTER];
	unsigned line;

	if (!pic_has_interrupt(pic))
		return -1;
	line = acknowledge(chip);
	if (line == CASCADE_LINE) {
		chip = &pic->chip[SLAVE];
		line = acknowledge(chip);
		cascade(pic);
	}
	return chip->vector_base + (int)line;
}

/* The chip whose port it is; PIC_CHIPS: none. */
static unsigned chip_of(uint16_t port)
{
	switch (port & ~DATA) {
	case COMMAND_PORT: return MASTER;
	case COMMAND_PORT + SLAVE_DISTANCE: return SLAVE;
	default: return PIC_CHIPS;
	}
}

bool pic_read(const struct pic *pic, uint16_t port, uint8_t *ret)
{
	unsigned n = chip_of(port);
	const struct pic_chip *chip = &pic->chip[n % PIC_CHIPS];

	if (n == PIC_CHIPS)
		return false;
	if (port & DATA)
		*ret = chip->mask;
	else
		*ret = chip->shows_service ? chip->service : chip->request;
	return true;
}

/* Words 2 to 4; the third says how the chips are joined, which is known. */
static void initialise(struct pic_chip *chip, uint8_t value)
{
	switch (chip->init_step) {
	case 2: chip->vector_base = value & VECTOR_BITS; break;
	case 4: chip->ends_by_itself = value & WORD_4_ENDS_ITSELF; break;
	default: break;
	}
	chip->init_step++;
	if (chip->init_step > 4 || (chip->init_step == 4 && !chip->wants_word_4))
		chip->init_step = 0;
}

static void end_of_interrupt(struct pic_chip *chip, uint8_t command)
{
	unsigned line = command & LINE_BITS;

	if ((command & END_BITS) == END_HIGHEST)
		line = first(chip->service);
	else if ((command & END_BITS) != END_SPECIFIC)
		return;
	if (line < CHIP_LINES)
		chip->service &= (uint8_t)~bit_of(line);
}

static void command(struct pic_chip *chip, uint8_t value)
{
	if (value & WORD_1) {
		*chip = (struct pic_chip){ .lines = chip->lines,
					   .vector_base = chip->vector_base,
					   .init_step = 2,
					   .wants_word_4 = value & WORD_1_WANTS_4 };
	} else if (value & IS_COMMAND_3) {
		if ((value & READ_BITS) >= READ_REQUEST)
			chip->shows_service = (value & READ_BITS) == READ_SERVICE;
	} else {
		end_of_interrupt(chip, value);
	}
}

bool pic_write(struct pic *pic, uint16_t port, uint8_t value)
{
	unsigned n = chip_of(port);
	struct pic_chip *chip = &pic->chip[n % PIC_CHIPS];

	if (n == PIC_CHIPS)
		return false;
	if (!(port & DATA))
		command(chip, value);
	else if (chip->init_step)
		initialise(chip, value);
	else
		chip->mask = value;
	cascade(pic);
	return true;
}
