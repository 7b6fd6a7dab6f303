"""The API of umbrad (umbra-api(7)) for programs in Python, with nothing but its standard library.

    from umbra_client import Client
    umbra = Client()
    umbra.create_machine("one", kernel="/boot/vmlinuz", start=True)
    print(umbra.run_program("one", ["uname", "-a"])["output"])
    umbra.wait(umbra.fork_machine("one", name="two"))

Each operation of the API is a method (operations.py, made of its OpenAPI document); it returns what was answered, and raises Failure where that is one.
A Client may be used by several threads: each call is a connection of its own.
"""
import http.client, json, os, socket, time, urllib.parse

from .operations import Operations

__all__ = ["Client", "Failure", "OperationFailed"]


class Failure(Exception):
    """What the daemon refused: status (HTTP's), code and error (a row of the exit codes), reason, remedy."""
    def __init__(self, status, answer):
        known = answer if isinstance(answer, dict) else {}
        self.status, self.code, self.error = status, known.get("code"), known.get("error")
        self.reason, self.remedy = known.get("reason", str(answer)), known.get("remedy", "")
        super().__init__("%s; %s" % (self.reason, self.remedy) if self.remedy else self.reason)


class OperationFailed(Failure):
    """An operation that has ended otherwise than done; operation is what is said of it."""
    def __init__(self, operation):
        super().__init__(202, operation.get("error", {"reason": operation["state"]}))
        self.operation = operation


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("umbra", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _query(members):
    pairs = []
    for name, value in members.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is not None:
                pairs.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return "?" + urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote) if pairs else ""


class Client(Operations):
    def __init__(self, path=None, timeout=120):
        """path: the daemon's socket; without: where that of this user listens. timeout: of a call, in seconds."""
        folder = os.environ.get("XDG_RUNTIME_DIR")
        folder = os.path.join(folder, "umbra") if folder else "/tmp/umbra-%d" % os.getuid()
        self.path, self.timeout = path or os.path.join(folder, ".daemon"), timeout

    def _request(self, connection, method, path, body=None, headers={}):
        data = None if body is None else json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        sent = dict(headers)
        if data is not None:
            sent["Content-Type"] = "application/json"
        connection.request(method, path, data, sent)
        return connection.getresponse()

    def _call(self, method, path, of_path, query, body, idempotency_key=None):
        for name, value in of_path.items():
            path = path.replace("{%s}" % name, urllib.parse.quote(value, safe=""))
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        connection = _Connection(self.path, self.timeout)
        try:
            answer = self._request(connection, method, path + _query(query), body, headers)
            text = answer.read().decode()
            said = json.loads(text) if answer.headers.get_content_type() == "application/json" else text
        finally:
            connection.close()
        if answer.status >= 400:
            raise Failure(answer.status, said)
        return said

    def wait(self, operation, seconds=600):
        """What is said of an operation once it is done; raises OperationFailed, or TimeoutError."""
        end = time.monotonic() + seconds
        pause = 0.01
        while operation["state"] == "running":
            if time.monotonic() >= end:
                raise TimeoutError("operation %s still runs" % operation["id"])
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
            operation = self.get_operation(operation["id"])
        if operation["state"] != "done":
            raise OperationFailed(operation)
        return operation

    def events(self, after=None, subject=None):
        """What happens, one (number, event) after the other, without an end; after: the number of the last one known."""
        connection = _Connection(self.path, self.timeout)
        try:
            answer = self._request(connection, "GET", "/v1/events" + _query({"after": after, "subject": subject}))
            if answer.status >= 400:
                raise Failure(answer.status, json.loads(answer.read()))
            number = None
            while True:
                line = answer.readline()
                if not line:
                    return
                if line.startswith(b"id: "):
                    number = int(line[4:])
                elif line.startswith(b"data: "):
                    yield number, json.loads(line[6:])
        finally:
            connection.close()
