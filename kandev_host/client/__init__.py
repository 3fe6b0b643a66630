"""A client of the WebSocket protocol, for the command line, for tests and for anybody's programs.

    async with Client.connect("http://127.0.0.1:8080", token) as client:
        reply = await client.request(TaskGet(task_id=task_id))     # typed: a TaskReply
        same = await client.call("task.get", {"task_id": task_id})  # JSON in, JSON out
        await client.subscribe(f"task:{task_id}", after_seq=0)
        async for notification in client.notifications():
            ...

`Client` is one connection; when that ends, so does the client, and `resume_seq` and `journal_id` say where to go on.
`ReconnectingClient` does the same and comes back by itself: each durable event arrives once and in order, and calls
that were on their way are asked again under the same id. The types of requests and responses are those of
`kandev_host.protocol.actions`.
"""

from kandev_host.client.backoff import Backoff
from kandev_host.client.connection import Notification
from kandev_host.client.errors import ClientError, ConnectionLost
from kandev_host.client.reconnecting import ReconnectingClient
from kandev_host.client.single import Client

__all__ = ["Backoff", "Client", "ClientError", "ConnectionLost", "Notification", "ReconnectingClient", "connect"]

connect = Client.connect
