/* Channels between machines, and what was decided about them. */
import { get, listen } from "./api.js";
import { bytes, element, state, table } from "./dom.js";

const EVERY_MS = 3000;

const ports = (list) => list.map((port) => [port.machine, `${port.instance}${port.class ? ` (${port.class})` : ""}`, port.side, state(port.state), port.peer || "–",
	port.packets.toLocaleString(), `${bytes(port.bytes)} (${bytes(port.bytes_per_s)}/s)`, `${port.waiting} wait, ${port.held} held back, ${port.lost} lost`]);
const decisions = (list) => list.slice().reverse().map((one) => [new Date(one.at * 1000).toLocaleString(), one.machine, `${one.act} ${one.instance}`, state(one.allowed ? "done" : "failed"), one.reason]);

export function show(main) {
	const channels = element("section", { class: "card" }), decided = element("section", { class: "card" });
	let ended = false, timer = null;
	main.append(element("div", { class: "head" }, element("h1", {}, "Bus")), channels, decided);
	async function look() {
		clearTimeout(timer);
		try {
			const bus = document.hidden ? null : await get("/v1/bus");
			if (bus && !ended) {
				channels.replaceChildren(element("h2", {}, "Channels"), bus.ports.length ? table("Channels", ["Machine", "Channel", "Side", "State", "Peer", "Packets", "Bytes", "More"], ports(bus.ports)) : element("p", { class: "empty" }, "No machine has a channel to another one."));
				decided.replaceChildren(element("h2", {}, "Decisions"), bus.decisions.length ? table("Decisions", ["When", "Machine", "What", "Allowed", "Why"], decisions(bus.decisions)) : element("p", { class: "empty" }, "Nothing was asked for yet."));
			}
		} catch (error) {
			if (!ended)
				channels.replaceChildren(element("p", { class: "empty" }, error.message));
		}
		if (!ended)
			timer = setTimeout(look, EVERY_MS);
	}
	look();
	const unlisten = listen((event) => ["linked", "started", "ended"].includes(event.kind) && look());
	return () => { ended = true; clearTimeout(timer); unlisten(); };
}
