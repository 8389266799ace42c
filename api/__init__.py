"""The doors: HTTP, WebSocket, SSE, authentication, errors, frames and the gateway's sessions."""
