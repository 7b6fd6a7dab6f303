/*
 * A terminal: a grid of cells that a stream of bytes writes into, as xterm has it, for what Linux
 * consoles, shells, editors and pagers send. Lines that left the grid are kept, SCROLLED of them.
 * Colours are classes: a terminal that makes style elements would need a policy that allows these.
 *
 * Left out: character sets other than UTF-8, wide characters' second cell, the mouse, sixels.
 *
 *  1. The grid has rows * columns cells; the cursor is within it.
 *  2. Whatever comes grows nothing beyond SCROLLED lines and SEQUENCE bytes of a sequence.
 */
import { element } from "./dom.js";

const SCROLLED = 2000, SEQUENCE = 256;
const KEYS = {
	Enter: "\r", Backspace: "\x7f", Escape: "\x1b", Tab: "\t", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D",
	Home: "\x1b[H", End: "\x1b[F", Insert: "\x1b[2~", Delete: "\x1b[3~", PageUp: "\x1b[5~", PageDown: "\x1b[6~",
	F1: "\x1bOP", F2: "\x1bOQ", F3: "\x1bOR", F4: "\x1bOS", F5: "\x1b[15~", F6: "\x1b[17~", F7: "\x1b[18~", F8: "\x1b[19~", F9: "\x1b[20~", F10: "\x1b[21~",
	F11: "\x1b[23~", F12: "\x1b[24~",
};

const blank = () => ({ text: " ", style: "" });

/** A palette of 256, or red, green and blue, as one of eight. */
function nearest(red, green, blue) {
	const bright = Math.max(red, green, blue) / 2 || 1;
	return (red > bright ? 1 : 0) | (green > bright ? 2 : 0) | (blue > bright ? 4 : 0);
}

function paletteColour(n) {
	if (n < 16)
		return n % 8;
	if (n >= 232)
		return n >= 244 ? 7 : 0;
	n -= 16;
	return nearest(Math.floor(n / 36), Math.floor(n / 6) % 6, n % 6);
}

export class Terminal {
	/** send(text): what is typed; null: it is only watched */
	constructor(label, rows, columns, send) {
		this.rows = rows;
		this.columns = columns;
		this.send = send;
		this.decoder = new TextDecoder();
		this.pending = "";
		this.scrolled = [];
		this.element = element("div", { class: "terminal", tabindex: "0", role: "group", "aria-label": label });
		this.past = element("div", {});
		this.present = element("div", {});
		this.element.append(this.past, this.present);
		this.reset();
		if (send) {
			this.element.addEventListener("keydown", (event) => this.key(event));
			this.element.addEventListener("paste", (event) => {
				event.preventDefault();
				send(event.clipboardData.getData("text").replace(/\r?\n/g, "\r"));
			});
		}
	}

	reset() {
		this.grid = Array.from({ length: this.rows }, () => this.newLine());
		this.other = null;
		this.row = this.column = 0;
		this.top = 0;
		this.bottom = this.rows - 1;
		this.keepCursor();
		this.setStyle([0]);
		this.cursorShown = true;
		this.wraps = true;
		this.draw();
	}

	newLine() {
		return Array.from({ length: this.columns }, blank);
	}

	/* ---- what is typed ---- */

	key(event) {
		if (event.key === "Tab" && event.shiftKey || event.metaKey || event.ctrlKey && event.shiftKey)
			return; /* the way out, and the browser's own */
		let text = KEYS[event.key];
		if (text === undefined && event.key.length === 1) {
			if (event.ctrlKey)
				text = /^[a-z@[\\\]^_]$/i.test(event.key) ? String.fromCharCode(event.key.toUpperCase().charCodeAt(0) & 31) : undefined;
			else
				text = event.altKey ? `\x1b${event.key}` : event.key;
		}
		if (text === undefined)
			return;
		event.preventDefault();
		this.send(text);
	}

	/* ---- what comes ---- */

	write(bytes) {
		let text = this.pending + this.decoder.decode(bytes, { stream: true });
		this.pending = "";
		for (let at = 0; at < text.length;) {
			const code = text.charCodeAt(at);
			if (code === 27) {
				const taken = this.sequence(text, at);
				if (!taken) {
					this.pending = text.length - at > SEQUENCE ? "" : text.slice(at);
					break;
				}
				at += taken;
			} else if (code < 32 || code === 127) {
				this.control(code);
				at++;
			} else {
				const letter = String.fromCodePoint(text.codePointAt(at));
				this.put(letter);
				at += letter.length;
			}
		}
		this.drawSoon();
	}

	put(letter) {
		if (this.column >= this.columns) {
			if (this.wraps) {
				this.column = 0;
				this.lineFeed();
			} else {
				this.column = this.columns - 1;
			}
		}
		this.grid[this.row][this.column++] = { text: letter, style: this.style };
	}

	control(code) {
		switch (code) {
		case 8: this.column = Math.max(0, Math.min(this.column, this.columns - 1) - 1); break;
		case 9: this.column = Math.min(this.columns - 1, (this.column >> 3) + 1 << 3); break;
		case 10: case 11: case 12: this.lineFeed(); break;
		case 13: this.column = 0; break;
		}
	}

	lineFeed() {
		if (this.row === this.bottom)
			this.scrollUp(1);
		else if (this.row + 1 < this.rows)
			this.row++;
	}

	scrollUp(count) {
		for (let n = 0; n < Math.min(count, this.rows); n++) {
			const [line] = this.grid.splice(this.top, 1);
			if (!this.top && !this.other && this.scrolled.push(line) > SCROLLED)
				this.scrolled.shift(); /* nothing is drawn while the page is hidden */
			this.grid.splice(this.bottom, 0, this.newLine());
		}
	}

	scrollDown(count) {
		for (let n = 0; n < Math.min(count, this.rows); n++) {
			this.grid.splice(this.bottom, 1);
			this.grid.splice(this.top, 0, this.newLine());
		}
	}

	/** Of the sequence that begins at this place: its length; 0: it is not all there. */
	sequence(text, at) {
		const kind = text[at + 1];
		if (kind === undefined)
			return 0;
		if (kind === "[") {
			const found = /^([?>!=]?)([0-9;:]*)([ -/]*)([@-~])/.exec(text.slice(at + 2, at + SEQUENCE));
			if (!found)
				return /^[?>!=]?[0-9;:]*[ -/]*$/.test(text.slice(at + 2, at + SEQUENCE)) && text.length - at < SEQUENCE ? 0 : 2;
			this.act(found[4], found[1], found[2].split(/[;:]/).map(Number));
			return 2 + found[0].length;
		}
		if (kind === "]" || kind === "P" || kind === "_" || kind === "^") {
			const end = /\x07|\x1b\\/.exec(text.slice(at + 2, at + SEQUENCE));
			if (end)
				return 2 + end.index + end[0].length;
			return text.length - at < SEQUENCE ? 0 : 2;
		}
		if ("()*+#%".includes(kind))
			return text.length > at + 2 ? 3 : 0;
		this.short(kind);
		return 2;
	}

	short(kind) {
		switch (kind) {
		case "7": this.keepCursor(); break;
		case "8": this.restoreCursor(); break;
		case "D": this.lineFeed(); break;
		case "E": this.column = 0; this.lineFeed(); break;
		case "M":
			if (this.row === this.top)
				this.scrollDown(1);
			else if (this.row)
				this.row--;
			break;
		case "c": this.reset(); break;
		}
	}

	keepCursor() {
		this.kept = { row: this.row, column: this.column, style: this.style };
	}

	restoreCursor() {
		this.moveTo(this.kept.row, this.kept.column);
		this.style = this.kept.style;
	}

	moveTo(row, column) {
		this.row = Math.max(0, Math.min(this.rows - 1, row));
		this.column = Math.max(0, Math.min(this.columns - 1, column));
	}

	clear(line, from, to) {
		for (let n = Math.max(0, from); n < Math.min(to, this.columns); n++)
			this.grid[line][n] = blank();
	}

	act(letter, mark, numbers) {
		const first = numbers[0] || 0, count = first || 1, line = this.grid[this.row];
		if (mark === "?" && (letter === "h" || letter === "l"))
			return numbers.forEach((number) => this.mode(number, letter === "h"));
		if (mark)
			return undefined;
		switch (letter) {
		case "A": this.moveTo(this.row - count, this.column); break;
		case "B": case "e": this.moveTo(this.row + count, this.column); break;
		case "C": case "a": this.moveTo(this.row, this.column + count); break;
		case "D": this.moveTo(this.row, this.column - count); break;
		case "E": this.moveTo(this.row + count, 0); break;
		case "F": this.moveTo(this.row - count, 0); break;
		case "G": case "`": this.moveTo(this.row, count - 1); break;
		case "d": this.moveTo(count - 1, this.column); break;
		case "H": case "f": this.moveTo(count - 1, (numbers[1] || 1) - 1); break;
		case "J": this.clearScreen(first); break;
		case "K": this.clear(this.row, first === 0 ? this.column : 0, first === 1 ? this.column + 1 : this.columns); break;
		case "L": case "M": this.moveLines(letter === "L", count); break;
		case "P": line.splice(this.column, Math.min(count, this.columns)); this.fit(line); break;
		case "@": line.splice(this.column, 0, ...Array.from({ length: Math.min(count, this.columns) }, blank)); this.fit(line); break;
		case "X": this.clear(this.row, this.column, this.column + count); break;
		case "S": this.scrollUp(count); break;
		case "T": this.scrollDown(count); break;
		case "m": this.setStyle(numbers); break;
		case "r": this.setRegion(count - 1, (numbers[1] || this.rows) - 1); break;
		case "s": this.keepCursor(); break;
		case "u": this.restoreCursor(); break;
		case "n":
			if (first === 6 && this.send)
				this.send(`\x1b[${this.row + 1};${Math.min(this.column, this.columns - 1) + 1}R`);
			break;
		case "c":
			if (this.send)
				this.send("\x1b[?6c");
			break;
		}
		return undefined;
	}

	fit(line) {
		line.length = Math.min(line.length, this.columns);
		while (line.length < this.columns)
			line.push(blank());
	}

	moveLines(inserts, count) {
		if (this.row < this.top || this.row > this.bottom)
			return;
		const top = this.top;
		this.top = this.row;
		const other = this.other; /* what is deleted here is not what has scrolled away */
		this.other = other || [];
		if (inserts)
			this.scrollDown(count);
		else
			this.scrollUp(count);
		this.other = other;
		this.top = top;
	}

	setRegion(top, bottom) {
		if (top >= 0 && bottom < this.rows && top < bottom) {
			this.top = top;
			this.bottom = bottom;
		}
		this.moveTo(0, 0);
	}

	clearScreen(which) {
		for (let n = 0; n < this.rows; n++)
			if (which >= 2 || (which === 0 ? n > this.row : n < this.row))
				this.clear(n, 0, this.columns);
		if (which < 2)
			this.clear(this.row, which === 0 ? this.column : 0, which === 0 ? this.columns : this.column + 1);
	}

	mode(number, on) {
		if (number === 7)
			this.wraps = on;
		else if (number === 25)
			this.cursorShown = on;
		else if ((number === 1049 || number === 47 || number === 1047) && on === !this.other)
			this.swap(on);
	}

	swap(on) {
		if (on) {
			this.keepCursor();
			this.other = this.grid;
			this.grid = Array.from({ length: this.rows }, () => this.newLine());
		} else {
			this.grid = this.other;
			this.other = null;
			this.restoreCursor();
		}
	}

	setStyle(numbers) {
		const style = this.parts = numbers[0] === 0 || !this.parts ? { fg: null, bg: null, bold: false, under: false, inverse: false } : this.parts;
		for (let n = 0; n < numbers.length; n++) {
			const number = numbers[n];
			if (number === 0)
				Object.assign(style, { fg: null, bg: null, bold: false, under: false, inverse: false });
			else if (number === 1 || number === 22)
				style.bold = number === 1;
			else if (number === 4 || number === 24)
				style.under = number === 4;
			else if (number === 7 || number === 27)
				style.inverse = number === 7;
			else if (number === 38 || number === 48) {
				const colour = numbers[n + 1] === 5 ? paletteColour(numbers[n + 2] || 0) : nearest(numbers[n + 2] || 0, numbers[n + 3] || 0, numbers[n + 4] || 0);
				style[number === 38 ? "fg" : "bg"] = colour;
				n += numbers[n + 1] === 5 ? 2 : 4;
			} else if (number >= 30 && number <= 39 || number >= 90 && number <= 97)
				style.fg = number === 39 ? null : number % 10;
			else if (number >= 40 && number <= 49 || number >= 100 && number <= 107)
				style.bg = number === 49 ? null : number % 10;
		}
		this.style = this.styleText(style);
	}

	styleText({ fg, bg, bold, under, inverse }) {
		const [front, back] = inverse ? [bg === null ? 0 : bg, fg === null ? 7 : fg] : [fg, bg];
		return [front === null ? "" : `fg${front}`, back === null ? "" : `bg${back}`, bold ? "bold" : "", under ? "under" : ""].filter(Boolean).join(" ");
	}

	/* ---- what is seen ---- */

	drawSoon() {
		if (this.drawing)
			return;
		this.drawing = true;
		requestAnimationFrame(() => {
			this.drawing = false;
			this.draw();
		});
	}

	lineElement(line, cursor) {
		const made = element("div", { class: "line" });
		let end = line.length;
		while (end > 0 && line[end - 1].text === " " && !line[end - 1].style && end - 1 !== cursor)
			end--;
		for (let at = 0; at < end;) {
			const style = at === cursor ? "cursor" : line[at].style;
			let text = "";
			do
				text += line[at++].text;
			while (at < end && at !== cursor && style !== "cursor" && line[at].style === style);
			made.append(style ? element("span", { class: style }, text) : text);
		}
		return made;
	}

	draw() {
		const follows = this.element.scrollTop + this.element.clientHeight >= this.element.scrollHeight - 40;
		for (const line of this.scrolled.splice(0))
			this.past.append(this.lineElement(line, -1));
		while (this.past.childElementCount > SCROLLED)
			this.past.firstChild.remove();
		this.present.replaceChildren(...this.grid.map((line, n) =>
			this.lineElement(line, this.send && this.cursorShown && n === this.row ? Math.min(this.column, this.columns - 1) : -1)));
		if (follows)
			this.element.scrollTop = this.element.scrollHeight;
	}

	/** All that is seen, as text. */
	text() {
		return this.grid.map((line) => line.map((cell) => cell.text).join("").trimEnd()).join("\n");
	}
}
