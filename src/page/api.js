/*
 * The API: requests, what happens, operations, WebSockets. The session is the tab's: it is kept in
 * sessionStorage, which belongs to this origin with its port, and sent with each request.
 */
const KEPT = "umbra-session";
let session = sessionStorage.getItem(KEPT);

export class Failure extends Error {
	constructor(status, said) {
		super(said.remedy ? `${said.reason}; ${said.remedy}` : said.reason || `status ${status}`);
		this.status = status;
		this.said = said;
	}
}

async function failureOf(answer) {
	let said = {};
	try {
		said = await answer.json();
	} catch {
		said.reason = `the daemon answered ${answer.status}`;
	}
	return new Failure(answer.status, said);
}

function headers(more) {
	return Object.assign(session ? { Authorization: `Bearer ${session}` } : {}, more);
}

export async function ask(method, path, body, signal) {
	const answer = await fetch(path, { method, signal, headers: headers(body === undefined ? {} : { "Content-Type": "application/json" }),
		body: body === undefined ? undefined : JSON.stringify(body) });
	if (!answer.ok)
		throw await failureOf(answer);
	return answer.json();
}

export const get = (path, signal) => ask("GET", path, undefined, signal);

/**
 * f as it may be called whenever something has happened: it runs once more when it was called while it ran, and never twice at once, so
 * that no older answer comes last.
 */
export function oneAtATime(f) {
	let running = null, next = null;
	const begin = () => running = f().finally(() => running = null);
	return () => {
		if (!running)
			return begin();
		next = next || running.catch(() => {}).then(() => { next = null; return begin(); });
		return next;
	};
}

export const query = (path, members) => `${path}?${new URLSearchParams(members)}`;
export const machinePath = (name, verb) => `/v1/machines/${encodeURIComponent(name)}${verb ? `/${verb}` : ""}`;

/* ---- who is let in ---- */

export async function enter(ticket) {
	session = null;
	session = (await ask("POST", "/v1/session", { ticket })).session;
	sessionStorage.setItem(KEPT, session);
}

/** A token of umbrad --listen. */
export function enterWith(token) {
	session = token;
	sessionStorage.setItem(KEPT, token);
}

/* ---- operations ---- */

const waiting = new Map();

function operationTold(operation) {
	const waits = waiting.get(operation.id);
	if (!waits || operation.state === "running")
		return;
	waiting.delete(operation.id);
	waits(operation);
}

/** Resolves when it has ended; fails when it has failed. */
export async function done(operation) {
	let ended = operation;
	if (operation.state === "running") {
		const heard = new Promise((resolve) => waiting.set(operation.id, resolve));
		const now = await get(`/v1/operations/${operation.id}`); /* it may have ended before we listened */
		operationTold(now);
		ended = await heard;
	}
	if (ended.state !== "done")
		throw new Failure(0, ended.error || { reason: `it was ${ended.state}` });
	return ended;
}

/* ---- what happens ---- */

const listeners = new Set();
let last = null;

/** f(event) of each event from now on, and of {kind: "linked"} when all may be new; returns what ends that. */
export function listen(f) {
	listeners.add(f);
	return () => listeners.delete(f);
}

function take(block) {
	const id = /^id: ?(\d+)$/m.exec(block);
	const data = /^data: ?(.*)$/m.exec(block);
	if (id)
		last = id[1];
	if (!data)
		return;
	const event = JSON.parse(data[1]);
	if (event.operation)
		operationTold(event.operation);
	for (const f of listeners)
		f(event);
}

async function follow(linked) {
	const path = last === null ? "/v1/events" : query("/v1/events", { after: last });
	const answer = await fetch(path, { headers: headers({}) });
	if (!answer.ok)
		throw await failureOf(answer);
	linked(true);
	for (const f of listeners) /* nobody was told of what happened since the first look */
		f({ kind: "linked" });
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
	let text = "";
	for (;;) {
		const { value, done: ended } = await reader.read();
		if (ended)
			return;
		text += value;
		for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
			take(text.slice(0, end));
			text = text.slice(end + 2);
		}
	}
}

/** Goes on for as long as the page is there, from the last event that it has seen. */
export async function followEvents(linked, refused) {
	for (;;) {
		try {
			await follow(linked);
		} catch (error) {
			if (error.status === 401)
				return refused();
		}
		linked(false);
		await new Promise((resolve) => setTimeout(resolve, 1000));
		for (const id of waiting.keys()) /* what ended while nobody listened */
			get(`/v1/operations/${id}`).then(operationTold, () => {});
	}
}

/* ---- WebSockets ---- */

const hexadecimal = (text) => Array.from(new TextEncoder().encode(text), (byte) => byte.toString(16).padStart(2, "0")).join("");

export function openSocket(path) {
	const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`,
		["umbra.stream", `umbra.bearer.${hexadecimal(session || "")}`]);
	socket.binaryType = "arraybuffer";
	return socket;
}

/* ---- what the API has ---- */

let document_;

export async function apiDocument() {
	document_ = document_ || await get("/openapi.json");
	return document_;
}
