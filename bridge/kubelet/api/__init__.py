"""The kubelet's own HTTPS API: logs, exec, attach, port-forward, usage.

`server.KubeletApi` is the whole of it. The API server, metrics-server and whoever may are its
clients; everybody has to say who they are, and the API server says what they may.
"""
