"""What is known not to be HTTP, which is all that a deployment here can serve.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

_BY_IMAGE = {
    "mysql": "MySQL's protocol",
    "mariadb": "MySQL's protocol",
    "percona": "MySQL's protocol",
    "percona-server": "MySQL's protocol",
    "postgres": "PostgreSQL's protocol",
    "postgresql": "PostgreSQL's protocol",
    "postgis": "PostgreSQL's protocol",
    "timescaledb": "PostgreSQL's protocol",
    "pgvector": "PostgreSQL's protocol",
    "redis": "Redis' protocol",
    "redis-stack-server": "Redis' protocol",
    "redis-follower": "Redis' protocol",
    "valkey": "Redis' protocol",
    "keydb": "Redis' protocol",
    "dragonfly": "Redis' protocol",
    "mongo": "MongoDB's protocol",
    "mongodb": "MongoDB's protocol",
    "memcached": "memcached's protocol",
    "rabbitmq": "AMQP",
    "kafka": "Kafka's protocol",
    "cp-kafka": "Kafka's protocol",
    "zookeeper": "ZooKeeper's protocol",
    "cp-zookeeper": "ZooKeeper's protocol",
    "nats": "NATS' protocol",
    "cassandra": "Cassandra's protocol",
    "mosquitto": "MQTT",
    "eclipse-mosquitto": "MQTT",
    "azure-sql-edge": "SQL Server's protocol",
    "openldap": "LDAP",
    "etcd": "etcd's protocol",
}

_BY_PORT = {
    21: "FTP",
    22: "SSH",
    25: "SMTP",
    53: "DNS",
    389: "LDAP",
    443: "HTTPS (TLS ends before this server)",
    636: "LDAPS",
    1433: "SQL Server's protocol",
    1521: "Oracle's protocol",
    1883: "MQTT",
    2181: "ZooKeeper's protocol",
    3306: "MySQL's protocol",
    4222: "NATS' protocol",
    5432: "PostgreSQL's protocol",
    5672: "AMQP",
    6379: "Redis' protocol",
    8443: "HTTPS (TLS ends before this server)",
    9042: "Cassandra's protocol",
    9092: "Kafka's protocol",
    11211: "memcached's protocol",
    25565: "Minecraft's protocol",
    27017: "MongoDB's protocol",
}


def image_name(image: str) -> str:
    """Give the last part of an image's name: ``registry:5000/a/mysql:8`` is ``mysql``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()


def not_http(image: str, ports: Iterable[int]) -> str:
    """Name what something speaks that is known not to speak HTTP; ``""`` where nothing is known.

    Args:
        ports: That it listens at; one that may be HTTP is enough to take it for that.
    """
    listening = list(ports)
    if not listening:
        return _BY_IMAGE.get(image_name(image), "")
    spoken = [_BY_PORT.get(port, "") for port in listening]
    return "" if "" in spoken else spoken[0]


def likely_port(ports: Iterable[int]) -> int | None:
    """Choose among several: the first that is not known to be something else than HTTP."""
    listening = list(ports)
    found = [port for port in listening if port not in _BY_PORT]
    return next(iter(found or listening), None)
