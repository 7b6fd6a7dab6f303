/* What takes long: operations that run, how far they are, and the last that ended. */
import { ask, get, listen, oneAtATime } from "./api.js";
import { element, say, state, table, time } from "./dom.js";

function row(operation) {
	const part = operation.all ? element("progress", { max: operation.all, value: operation.done, "aria-label": `${operation.kind}, how far` }) : "";
	const cancel = operation.state === "running" ? element("button", { type: "button", "aria-label": `Cancel ${operation.kind}`, onclick: () =>
		ask("DELETE", `/v1/operations/${operation.id}`).catch((error) => say(error.message, true)) }, "Cancel") : "";
	return [time(operation.begun), operation.kind, operation.machine || "–", state(operation.state), operation.error ? operation.error.reason : part, cancel];
}

export function show(main) {
	const list = element("section", { class: "card" });
	main.append(element("div", { class: "head" }, element("h1", {}, "Work")), list);
	let waits = false;
	const refresh = oneAtATime(async () => {
		waits = false;
		const operations = await get("/v1/operations");
		list.replaceChildren(operations.length ? table("Operations", ["Begun", "What", "Machine", "State", "How far", ""], operations.slice(0, 100).map(row)) : element("p", { class: "empty" }, "Nothing was begun yet."));
	});
	const soon = () => { if (!waits) { waits = true; setTimeout(() => refresh().catch(() => {}), 150); } };
	refresh().catch((error) => say(error.message, true));
	return listen((event) => ["linked", "operation"].includes(event.kind) && soon());
}
