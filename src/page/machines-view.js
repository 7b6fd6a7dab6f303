/* All machines, with what they use; what can be done with one (actions()) is also its own view's. */
import { ask, done, get, listen, machinePath, oneAtATime, query } from "./api.js";
import { askFor, bytes, element, say, state } from "./dom.js";

const EVERY_MS = 2000;

export const link = (name) => `#/machine/${encodeURIComponent(name)}`;

async function perform(title, act) {
	try {
		const ended = await act();
		if (ended !== null)
			say(`${title}: done`);
	} catch (error) {
		say(`${title}: ${error.message}`, true);
	}
}

const operate = async (name, verb, body) => done(await ask("POST", machinePath(name, verb), body || {}));

async function fork(name) {
	const said = await askFor(`Fork ${name}`, [
		{ name: "name", label: "Name of the child", kind: "text", value: `${name}-fork`, needed: true, hint: "Of several it is what their names begin with" },
		{ name: "count", label: "How many", kind: "number", value: 1, least: 1, most: 64 },
		{ name: "suspend-parent", label: "The parent stands still then", kind: "check" }], "Fork");
	return said ? operate(name, "fork", said) : null;
}

async function save(name) {
	const said = await askFor(`Save ${name}`, [
		{ name: "file", label: "File", kind: "text", needed: true, hint: "An absolute path on the host" },
		{ name: "stop", label: "It ends then", kind: "check" }, { name: "replace", label: "A file that is there may be replaced", kind: "check" }], "Save");
	return said ? operate(name, "save", said) : null;
}

async function sure(title, act, does) {
	const said = await askFor(title, [], act, true);
	return said ? does() : null;
}

/** Buttons for what the machine's state lets be done. */
export function actions(machine) {
	const name = machine.name;
	const button = (label, act, style = "") => element("button", { type: "button", class: style, "aria-label": `${label} ${name}`, onclick: () => perform(`${label} ${name}`, act) }, label);
	if (machine.state === "stopped")
		return [button("Start", () => operate(name, "start"), "main"),
			button("Forget", () => sure(`Forget ${name}? Its disks stay.`, "Forget", () => ask("DELETE", machinePath(name))))];
	return [machine.state === "paused" ? button("Resume", () => ask("POST", machinePath(name, "resume"), {}), "main") : button("Pause", () => ask("POST", machinePath(name, "pause"), {})),
		button("Fork", () => fork(name)), button("Save", () => save(name)), button("Stop", () => operate(name, "stop")),
		button("Kill", () => sure(`Kill ${name}? It ends at once, as if its power were cut.`, "Kill", () => operate(name, "kill")), "harm")];
}

/* ---- figures: what has grown between two looks ---- */

const sum = (groups, key) => (groups || []).reduce((all, one) => all + (one[key] || 0), 0);

export function measured(usage) {
	const counters = usage.counters || {};
	return { at: performance.now(), processor: usage["processor-ms"], waited: usage["waited-ms"], occupied: usage.occupied,
		disk: sum(counters.disk, "read-bytes") + sum(counters.disk, "written-bytes"), net: sum(counters.net, "sent-bytes") + sum(counters.net, "received-bytes"),
		hasDisk: Boolean(counters.disk), hasNet: Boolean(counters.net) };
}

export function rates(before, now) {
	const seconds = before ? (now.at - before.at) / 1000 : 0;
	const rate = (key) => seconds > 0 && now[key] >= before[key] ? (now[key] - before[key]) / seconds : null;
	return { processor: rate("processor") === null ? null : rate("processor") / 10, waited: rate("waited") === null ? null : rate("waited") / 10, disk: rate("disk"), net: rate("net") };
}

export const percent = (value) => value === null || value === undefined ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} %`;
export const perSecond = (value) => value === null || value === undefined ? "–" : `${bytes(value)}/s`;

/** Calls shown(name → {usage, rates}) now and every two seconds, while the page is seen. */
export function watchUsage(shown, shares = false) {
	const before = new Map();
	let ended = false, timer = null;
	async function look() {
		if (!document.hidden) {
			try {
				const all = await get(shares ? query("/v1/usage", { shares: true }) : "/v1/usage");
				const figures = new Map();
				for (const [name, usage] of Object.entries(all)) {
					const now = measured(usage);
					figures.set(name, { usage, now, rates: rates(before.get(name), now) });
					before.set(name, now);
				}
				if (!ended)
					shown(figures);
			} catch { /* the next look may find it */ }
		}
		if (!ended)
			timer = setTimeout(look, shares ? EVERY_MS * 2 : EVERY_MS);
	}
	look();
	return () => { ended = true; clearTimeout(timer); };
}

/* ---- the view ---- */

function card(machine) {
	const figure = (name) => element("dd", { "data-figure": name }, "–");
	const memory = machine.assigned || machine.memory;
	return element("article", { class: "card", "data-machine": machine.name, "aria-labelledby": `name-${machine.name}` },
		element("div", { class: "pair" }, element("h2", { id: `name-${machine.name}` }, element("a", { href: link(machine.name) }, machine.name)), state(machine.state),
			machine.parent && element("span", { class: "hint" }, `forked from ${machine.parent}`)),
		machine.state === "stopped" ? element("p", { class: "hint" }, "described, not started") : element("dl", { class: "figures" },
			element("div", {}, element("dt", {}, "Processor"), figure("processor")), element("div", {}, element("dt", {}, "Memory"), figure("memory")),
			element("div", {}, element("dt", {}, "Disk"), figure("disk")), element("div", {}, element("dt", {}, "Network"), figure("net")),
			element("div", {}, element("dt", {}, "Waited"), figure("waited")), element("div", {}, element("dt", {}, "Size"), element("dd", {}, `${machine.cpus || "?"} × ${bytes(memory)}`))),
		element("div", { class: "actions" }, actions(machine)));
}

function showFigures(list, figures) {
	for (const one of list.children) {
		const found = figures.get(one.dataset.machine);
		const set = (name, text) => { const place = one.querySelector(`[data-figure=${name}]`); if (place && place.textContent !== text) place.textContent = text; };
		if (!found)
			continue;
		set("processor", percent(found.rates.processor));
		set("waited", percent(found.rates.waited));
		set("memory", bytes(found.usage.occupied));
		set("disk", found.now.hasDisk ? perSecond(found.rates.disk) : "none");
		set("net", found.now.hasNet ? perSecond(found.rates.net) : "none");
	}
}

export function show(main) {
	const list = element("div", { class: "cards" });
	const cards = new Map();
	let figures = new Map();
	main.append(element("div", { class: "head" }, element("h1", {}, "Machines"), element("span", { class: "grow" }), element("a", { class: "button", href: "#/create" }, "New machine")), list);

	/* A card is made anew only when something of its machine is new: what has the focus stays. */
	const refresh = oneAtATime(async () => {
		const machines = await get("/v1/machines");
		const now = machines.map((machine) => {
			const text = JSON.stringify([machine.state, machine.cpus, machine.memory, machine.parent, machine.pid]);
			const old = cards.get(machine.name);
			const made = old && old.text === text ? old : { text, element: card(machine) };
			cards.set(machine.name, made);
			return made.element;
		});
		const same = list.children.length === now.length && now.every((one, n) => list.children[n] === one);
		if (!same)
			list.replaceChildren(...now.length ? now : [element("p", { class: "empty" }, "No machine runs or is described. ", element("a", { href: "#/create" }, "Make one."))]);
		showFigures(list, figures);
	});
	refresh().catch((error) => say(error.message, true));
	const unlisten = listen((event) => event.kind === "operation" || refresh().catch(() => {}));
	const unwatch = watchUsage((found) => { figures = found; showFigures(list, figures); });
	return () => { unlisten(); unwatch(); };
}
