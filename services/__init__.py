"""The services, split by bounded context. They share the contract in `protos/` and `services.kit`, nothing else."""
