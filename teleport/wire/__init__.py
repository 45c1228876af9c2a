"""The network: generated code, protobuf to model and back, servers, clients, errors to status and back."""
