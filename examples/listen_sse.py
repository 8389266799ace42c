"""Print everything a user is pushed, over server-sent events, resuming where a lost connection stopped.

python examples/listen_sse.py --token "$(riverrun token --user alice)" [--url http://127.0.0.1:8080]
"""

import argparse
import time

import httpx

RECONNECT_S = 1.0


def main(url: str, token: str) -> None:
    last_id = ""
    while True:
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        try:
            # The server sends a comment every 25 s; three missed are a lost connection.
            timeout = httpx.Timeout(10, read=75)
            with httpx.stream("GET", f"{url}/v1/stream", headers=headers, timeout=timeout) as stream:
                if stream.status_code != 200:
                    stream.read()
                    raise SystemExit(f"{stream.status_code}: {stream.text}")
                for line in stream.iter_lines():
                    field, _, value = line.partition(":")
                    if field == "id":
                        last_id = value.strip()
                    elif field == "data":
                        print(value.strip(), flush=True)
        except httpx.TransportError as error:
            print(f"# {error}; connecting again", flush=True)
        time.sleep(RECONNECT_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print what a user is pushed, over server-sent events.")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--token", required=True)
    arguments = parser.parse_args()
    main(arguments.url, arguments.token)
