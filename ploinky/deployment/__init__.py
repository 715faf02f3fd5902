"""The control corridor: from a request to deploy to a route that every worker serves.

Requests enter (`IDeploymentManager`); route tables leave (`IWorkerGroup`).  In between it conducts
Git, runtime, instances and store by their interfaces and does no I/O of its own but the moving of
directories, in injected threads.  It must not know HTTP, SQL, Git or any container engine.
"""
