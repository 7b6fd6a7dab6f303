/* One machine: what it is, what it uses, its console, a shell in it, its screen, its memory. */
import { ask, get, listen, machinePath, oneAtATime, openSocket, query } from "./api.js";
import { askFor, bytes, element, facts, say, state, table } from "./dom.js";
import { chart } from "./chart.js";
import { actions, link, percent, perSecond, watchUsage } from "./machines-view.js";
import { Terminal } from "./terminal.js";

const SAMPLES = 60, ROWS = 24, COLUMNS = 80;

/* ---- streams ---- */

function frame(kind, bytes) {
	const made = new Uint8Array(bytes.length + 1);
	made[0] = kind;
	made.set(bytes, 1);
	return made;
}

/** A WebSocket in a terminal (umbra-api(7), Streams). */
function stream(place, label, path, interactive) {
	const socket = openSocket(path);
	const encoder = new TextEncoder();
	const type = (text) => { if (socket.readyState === WebSocket.OPEN) socket.send(frame(0, encoder.encode(text))); };
	const terminal = new Terminal(label, ROWS, COLUMNS, interactive ? type : null);
	const status = element("p", { class: "hint", role: "status" }, "connecting …");
	socket.onopen = () => { status.textContent = interactive ? "connected; Shift+Tab leaves the terminal" : "live"; };
	socket.onmessage = ({ data }) => {
		const bytes = new Uint8Array(data);
		if (bytes[0] === 3)
			status.textContent = `ended: ${new TextDecoder().decode(bytes.subarray(1))}`;
		else
			terminal.write(bytes.subarray(1));
	};
	socket.onclose = () => { if (!status.textContent.startsWith("ended")) status.textContent = "closed"; };
	place.replaceChildren(terminal.element, status);
	if (interactive)
		terminal.element.focus();
	return () => socket.close();
}

async function openShell(name) {
	const said = await askFor(`A program in ${name}`, [
		{ name: "command", label: "Program and arguments", kind: "text", value: "/bin/sh", needed: true, hint: "By umbra-agent, which the guest has to run" }], "Run");
	if (!said)
		return null;
	const members = new URLSearchParams({ terminal: "true", rows: String(ROWS), columns: String(COLUMNS) });
	said.command.trim().split(/\s+/).forEach((word) => members.append("command", word));
	return `${machinePath(name, "exec")}?${members}`;
}

/* ---- what it is ---- */

function about(machine) {
	return element("section", { class: "card" }, element("h2", {}, "About"), facts([
		["Processors", machine.cpus], ["Memory", machine.memory && bytes(machine.memory)], ["Has now", machine.assigned && bytes(machine.assigned)],
		["From", machine.from && element("span", { class: "path" }, machine.from)], ["Forked from", machine.parent && element("a", { href: link(machine.parent) }, machine.parent)],
		["Guest", machine.guest], ["Memory is", machine["memory-mode"]], ["Started", machine.started && new Date(machine.started * 1000).toLocaleString()],
		["Broker, machine process", machine.pid && `${machine.pid}, ${machine.process}`],
		["Disks", machine.disks && element("ul", { class: "tree" }, machine.disks.map((disk) => element("li", { class: "path" }, `${disk.file} (${disk.format})`)))]]));
}

async function setMemory(machine) {
	const said = await askFor(`Memory of ${machine.name}`, [
		{ name: "mebibytes", label: "MiB that the guest shall have", kind: "number", least: 0, value: Math.round((machine.assigned || machine.memory) / 1048576), hint: "0: what it needs" }], "Set");
	if (said)
		await ask("PUT", machinePath(machine.name, "memory"), { bytes: (said.mebibytes || 0) * 1048576 });
}

/** A canvas: the page's policy lets no image in but its own files. */
async function screen(name) {
	const { png } = await get(machinePath(name, "screenshot"));
	const picture = await createImageBitmap(new Blob([Uint8Array.from(atob(png), (c) => c.charCodeAt(0))], { type: "image/png" }));
	const shown = element("canvas", { class: "screen", width: picture.width, height: picture.height, role: "img", "aria-label": `The screen of ${name}` });
	shown.getContext("2d").drawImage(picture, 0, 0);
	picture.close();
	return shown;
}

function registers(answer) {
	const rows = answer.processors.map((one, n) => [String(n), one.state, one.rip, one.symbol || "–", String(one["last-exception"])]);
	const counters = Object.entries(answer.counters).flatMap(([group, list]) => list.flatMap((one, n) =>
		Object.entries(one).filter(([, value]) => value).map(([name, value]) => [group, String(n), name, value.toLocaleString()])));
	return [table("Processors", ["Processor", "State", "At", "Symbol", "Last exception"], rows), element("h2", {}, "Counters"), table("Counters", ["Of", "Number", "What", "Count"], counters)];
}

export function show(main, name) {
	const head = element("div", { class: "head" });
	const facts_ = element("div", {}), graphs = element("div", { class: "cards" }), place = element("div", {}), inner = element("div", {});
	const ends = [];
	const history = { processor: [], waited: [], disk: [], net: [], occupied: [] };
	let closeStream = null, machine = { name };
	const fail = (error) => say(error.message, true);
	const stop = () => { if (closeStream) closeStream(); closeStream = null; };
	const tabs = [
		["Console", () => { stop(); closeStream = stream(place, `Console of ${name}`, machinePath(name, "console"), false); }],
		["Shell", async () => { const path = await openShell(name); if (path) { stop(); closeStream = stream(place, `Shell in ${name}`, path, true); } }],
		["Processors", async () => { stop(); place.replaceChildren(...registers(await get(machinePath(name, "registers")))); }],
		["Screen", async () => { stop(); place.replaceChildren(await screen(name)); }],
		["Set memory", () => setMemory(machine)]];
	const buttons = tabs.map(([label, act]) => element("button", { type: "button", onclick: () => Promise.resolve(act()).catch(fail) }, label));
	main.append(head, graphs, facts_, element("section", { class: "card", "aria-label": "Inside" }, element("h2", {}, "Inside"), element("div", { class: "actions", id: "inside" }, buttons), inner, place));

	const refresh = oneAtATime(async () => {
		machine = await get(machinePath(name));
		head.replaceChildren(element("h1", {}, name), state(machine.state), element("span", { class: "grow" }), element("div", { class: "actions" }, actions(machine)));
		facts_.replaceChildren(about(machine));
		for (const button of buttons)
			button.disabled = machine.state === "stopped";
	});
	refresh().catch((error) => {
		main.replaceChildren(element("h1", {}, name), element("p", { class: "empty wrong" }, error.message));
	});
	ends.push(listen((event) => {
		if (event.kind === "linked" || event.subject === name && event.kind !== "operation")
			refresh().catch(() => { stop(); main.replaceChildren(element("h1", {}, name), element("p", { class: "empty" }, "It is not there any more. ", element("a", { href: "#/machines" }, "All machines"))); });
	}));
	ends.push(watchUsage((all) => {
		const found = all.get(name);
		if (!found)
			return;
		const add = (key, value) => { history[key].push(value); history[key].splice(0, history[key].length - SAMPLES); };
		for (const key of ["processor", "waited", "disk", "net"])
			add(key, found.rates[key]);
		add("occupied", found.usage.occupied);
		const one = (title, series, shown) => element("section", { class: "card", "aria-label": title }, element("h2", {}, title), chart(title, series, shown, "two minutes"));
		graphs.replaceChildren(
			one("Processor", [{ name: "used", values: history.processor, colour: 0 }, { name: "waited", values: history.waited, colour: 1, dash: true }], percent),
			one("Memory of the host", [{ name: "occupied", values: history.occupied, colour: 2 }], bytes),
			one("Disk and network", [{ name: "disk", values: history.disk, colour: 4 }, { name: "network", values: history.net, colour: 5 }], perSecond));
	}));
	return () => { stop(); ends.forEach((end) => end()); };
}
