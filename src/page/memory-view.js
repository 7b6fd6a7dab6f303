/* The memory of all machines that is adjusted: over time, how pressed each is, and why it was moved. */
import { ask, get } from "./api.js";
import { askFor, bytes, element, facts, say, table } from "./dom.js";
import { chart } from "./chart.js";
import { link } from "./machines-view.js";

const EVERY_MS = 2000, SHOWN = 6, MIB = 1048576;
const ASSIGNED = 0, DEMAND = 1;

function graph(samples) {
	const names = [...new Set(samples.flatMap((sample) => Object.keys(sample.machines)))].slice(0, SHOWN);
	const values = (name, which) => samples.map((sample) => sample.machines[name] ? sample.machines[name][which] * MIB : null);
	return chart("Memory of machines", names.flatMap((name, n) => [{ name: `${name} has`, values: values(name, ASSIGNED), colour: n }, { name: `${name} needs`, values: values(name, DEMAND), colour: n, dash: true }]),
		bytes, `${Math.max(1, Math.round(samples.length / 60))} min`);
}

function pressure(machine) {
	return [element("meter", { min: 0, max: 150, high: 100, value: machine.pressure, "aria-label": `pressure of ${machine.name}` }), ` ${machine.pressure} %`];
}

function rows(machines) {
	return machines.map((machine) => [element("a", { href: link(machine.name) }, machine.name), bytes(machine.assigned), bytes(machine.target), bytes(machine.demand), pressure(machine), bytes(machine.occupied), bytes(machine.shared),
		machine.mode === "balanced" ? machine.reason : machine.mode]);
}

const moves = (list) => list.slice().reverse().map((move) => [`${(move["ago-ms"] / 1000).toFixed(1)} s ago`, move.name, `${bytes(move.from)} → ${bytes(move.to)}`, move.reason]);

export function show(main) {
	const host = element("section", { class: "card" }), figure = element("section", { class: "card" }), list = element("section", { class: "card" }), moved = element("section", { class: "card" });
	let ended = false, timer = null;
	main.append(element("div", { class: "head" }, element("h1", {}, "Memory"), element("span", { class: "grow" }), element("button", { type: "button", onclick: async () => {
		const said = await askFor("Reserve of the host", [{ name: "size", label: "What guests never get", kind: "text", value: "auto", needed: true, hint: "As 2G, or auto" }], "Set");
		if (said)
			ask("PUT", "/v1/memory/reserve", said).then(() => say("Reserve: done"), (error) => say(error.message, true));
	} }, "Set reserve")), host, figure, list, moved);
	async function look() {
		try {
			const [now, samples] = document.hidden ? [] : await Promise.all([get("/v1/memory"), get("/v1/memory/history")]);
			if (now && !ended) {
				host.replaceChildren(element("h2", {}, "Host"), facts([["Available", `${bytes(now.host.available)} of ${bytes(now.host.total)}`], ["In reserve", bytes(now.host.reserve)]]));
				figure.replaceChildren(element("h2", {}, "Over time"), graph(samples));
				list.replaceChildren(element("h2", {}, "Machines"), table("Memory of machines", ["Machine", "Has", "Shall have", "Needs", "Pressure", "Occupied", "Shared", "Why"], rows(now.machines)));
				moved.replaceChildren(element("h2", {}, "What the balancer did"), now.moves.length ? table("Moves", ["When", "Machine", "Memory", "Why"], moves(now.moves)) : element("p", { class: "empty" }, "Nothing yet."));
			}
		} catch (error) {
			if (!ended) {
				host.replaceChildren(element("p", { class: "empty" }, error.said && error.said.reason || error.message));
				figure.replaceChildren();
				list.replaceChildren();
				moved.replaceChildren();
			}
		}
		if (!ended)
			timer = setTimeout(look, EVERY_MS);
	}
	look();
	return () => { ended = true; clearTimeout(timer); };
}
