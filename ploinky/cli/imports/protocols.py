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

_HTTP_BESIDE = {"rabbitmq": 15672, "nats": 8222, "etcd": 2379}
"""Where some of these speak HTTP too, if that is what they are asked to."""

_BY_PORT = {
    21: "FTP",
    22: "SSH",
    25: "SMTP",
    53: "DNS",
    110: "POP3",
    143: "IMAP",
    389: "LDAP",
    443: "HTTPS (TLS ends before this server)",
    465: "SMTP",
    587: "SMTP",
    636: "LDAPS",
    993: "IMAP",
    995: "POP3",
    1025: "SMTP",
    1433: "SQL Server's protocol",
    1521: "Oracle's protocol",
    1883: "MQTT",
    2181: "ZooKeeper's protocol",
    2380: "etcd's protocol",
    3306: "MySQL's protocol",
    4222: "NATS' protocol",
    4369: "Erlang's protocol",
    5432: "PostgreSQL's protocol",
    5671: "AMQP",
    5672: "AMQP",
    6222: "NATS' protocol",
    6379: "Redis' protocol",
    8443: "HTTPS (TLS ends before this server)",
    8883: "MQTT",
    9042: "Cassandra's protocol",
    9092: "Kafka's protocol",
    9300: "Elasticsearch's own protocol",
    11211: "memcached's protocol",
    25565: "Minecraft's protocol",
    25672: "Erlang's protocol",
    27017: "MongoDB's protocol",
    33060: "MySQL's protocol",
}


def image_name(image: str) -> str:
    """Give the last part of an image's name: ``registry:5000/a/mysql:8`` is ``mysql``."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()


def not_http(image: str, ports: Iterable[int]) -> str:
    """Name what something speaks that is known not to speak HTTP; ``""`` where nothing is known.

    Args:
        ports: That it listens at; one that may be HTTP is enough to take it for that, unless the
            image is known better: a database's second port is none.
    """
    listening, name = list(ports), image_name(image)
    if name in _BY_IMAGE:
        return "" if _HTTP_BESIDE.get(name) in listening else _BY_IMAGE[name]
    spoken = [_BY_PORT.get(port, "") for port in listening]
    return "" if "" in spoken or not spoken else spoken[0]


def likely_port(ports: Iterable[int]) -> int | None:
    """Choose among several: the first that is not known to be something else than HTTP."""
    listening = list(ports)
    found = [port for port in listening if port not in _BY_PORT]
    return next(iter(found or listening), None)
