"""Compose files, as people write them: what is deployed, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ploinky.cli.failures import CONFIGURATION, CommandFailed
from tests.cli.imports.conftest import Planning, body, remarks

BLOG = """\
    services:
      blog:
        image: wordpress:6-apache
        restart: always
        ports:
          - 8080:80
        environment:
          WORDPRESS_DB_HOST: db
          WORDPRESS_DB_USER: blog
          WORDPRESS_DB_PASSWORD: example
        volumes:
          - html:/var/www/html
        depends_on: [db]
      db:
        image: mysql:8.0
        restart: always
        environment:
          - MYSQL_ROOT_PASSWORD=example
        volumes:
          - db:/var/lib/mysql
    volumes:
      html:
      db:
    """


def test_the_guides_own_file(compose: Planning) -> None:
    """Comes to the command that stands beside it there, with what runs as well."""
    plan = compose(
        """\
        # docker-compose.yml
        services:
          api:
            image: node:18
            command: npm start
        """
    )
    assert body(plan) == {
        "domain": "localhost",
        "path": "/api",
        "agent": "my-api",
        "kind": "service",
        "image": "node:18",
        "command": ["npm", "start"],
    }


def test_a_blog_and_its_database(compose: Planning) -> None:
    """The blog is deployed; its database is not, and who looks for it is told."""
    plan = compose(BLOG)
    assert body(plan)["port"] == 80
    assert body(plan)["volumes"] == [{"name": "html", "path": "/var/www/html"}]
    said = remarks(plan)
    assert said["services.db"] == (14, "it speaks MySQL's protocol, and a deployment serves HTTP")
    assert "address of db" in said["services.blog.environment.WORDPRESS_DB_HOST"][1]
    assert "begins empty" in said["services.blog.volumes[0]"][1]
    assert "not at port 8080" in said["services.blog.ports[0]"][1]
    assert "services.blog.environment.WORDPRESS_DB_USER" not in said
    assert not plan.is_whole


@pytest.mark.parametrize(
    ("image", "ports", "is_served"),
    [
        ("mariadb:10.6.4-focal", [3306, 33060], None),
        ("mysql", [33060], None),
        ("bitnami/postgresql", [5433], None),
        ("rabbitmq:3-management", [5672, 15672], 15672),
        ("nats", [4222, 6222, 8222], 8222),
        ("nats", [4222, 6222], None),
        ("mailhog/mailhog", [1025, 8025], 8025),
        ("elasticsearch:8.1.0", [9200, 9300], 9200),
        ("mailserver", [25, 143, 587, 993], None),
    ],
)
def test_a_database_is_none_the_less_for_a_second_port(
    compose: Planning, image: str, ports: list[int], is_served: int | None
) -> None:
    """What is known of the image counts; a port that may be HTTP does for what is not known."""
    plan = compose(f"services: {{it: {{image: '{image}', expose: {ports}}}}}")
    assert [one.body["port"] for one in plan.deployments] == ([is_served] if is_served else [])


def test_places_that_are_wished_for(compose: Planning) -> None:
    """By name, for all, or for the only one; a place also deploys what would be left out."""
    plan = compose(BLOG, domain="a.example", places={"blog": "/", "db": "b.example/db"})
    assert [one.where for one in plan.deployments] == ["b.example/db", "a.example/"]
    one = "services: {web: {image: nginx}}"
    assert compose(one, path="/x").deployments[0].where == "localhost/x"
    assert compose(one, ports={"web": 81}).deployments[0].body["port"] == 81


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"places": {"nobody": "/x"}}, "there are: a, b"),
        ({"ports": {"nobody": 1}}, "there are: a, b"),
        ({"path": "/x"}, "would give 2"),
        ({"places": {"a": "/b"}}, "a and b would both be deployed to localhost/b"),
    ],
)
def test_wishes_that_do_not_fit(compose: Planning, wishes: dict[str, object], said: str) -> None:
    """Are mistakes, with what there is."""
    with pytest.raises(CommandFailed, match=said) as caught:
        compose("services: {a: {image: x}, b: {image: y}}", **wishes)
    assert caught.value.exit_status == CONFIGURATION


def test_what_others_depend_on_is_deployed_first(compose: Planning) -> None:
    """In both ways to write it; otherwise in the file's order."""
    plan = compose(
        """\
        services:
          a: {image: x, depends_on: {c: {condition: service_healthy}}}
          b: {image: x}
          c: {image: x, depends_on: [d]}
          d: {image: x}
        """
    )
    assert [one.name for one in plan.deployments] == ["d", "c", "a", "b"]
    with pytest.raises(CommandFailed, match="in a circle: "):
        compose("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}")
    with pytest.raises(CommandFailed, match=r"compose\.yml:1: .*no service 'z'"):
        compose("services: {a: {image: x, depends_on: [z]}}")


def test_variables_come_from_where_compose_takes_them(compose: Planning, tmp_path: Path) -> None:
    """`.env`, the environment over it, `env_file`, and the service's own over that."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / ".env").write_text("TAG=1.2\nREPLICAS=3\n")
    (tmp_path / "my" / "a.env").write_text("A=file\nB=file\nC=${TAG}\n")
    plan = compose(
        """\
        services:
          web:
            image: web:${TAG:-latest}
            env_file:
              - a.env
              - {path: none.env, required: false}
            environment:
              - B=own
              - HOME_OF
              - UNSET
              - ON=on
              - COST=5$$
              - WHO=${WHO:-nobody}
            deploy: {replicas: "${REPLICAS}"}
        """,
        {"TAG": "9", "HOME_OF": "here"},
    )
    assert body(plan)["image"] == "web:9"
    assert body(plan)["replicas"] == 3
    assert body(plan)["environment"] == {
        "A": "file",
        "B": "own",
        "C": "9",
        "HOME_OF": "here",
        "ON": "on",
        "COST": "5$",
        "WHO": "nobody",
    }
    assert plan.borrowed == ("HOME_OF", "REPLICAS", "TAG")  # what leaves this machine is told
    assert "UNSET is not set here" in remarks(plan)["services.web.environment.UNSET"][1]


def test_values_are_as_they_are_written(compose: Planning) -> None:
    """Where another YAML, or a rounding, would change them."""
    text = "services: {a: {image: x, environment: {ON: on, V: 1.10, N: 010, T: true, E: }}}"
    plan = compose(text, {"E": "e"})
    expected = {"ON": "on", "V": "1.10", "N": "010", "T": "true", "E": "e"}
    assert body(plan)["environment"] == expected
    assert body(compose("services: {a: {image: x, ports: [22:8022]}}"))["port"] == 8022


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ("['8080:80']", 80),
        ("['127.0.0.1:8080:80/tcp']", 80),
        ("['[::1]:8080:80']", 80),
        ("[80]", 80),
        ("['443:443', '80:80']", 80),
        ("['3000-3002']", 3000),
        ("[{target: 8000, published: '80', protocol: tcp, mode: host}]", 8000),
        ("['53:53/udp', '8053:8053']", 8053),
    ],
)
def test_the_port_of_a_deployment(compose: Planning, ports: str, port: int) -> None:
    """The container's, and of several the first that may speak HTTP."""
    assert body(compose(f"services: {{a: {{image: x, ports: {ports}}}}}"))["port"] == port


@pytest.mark.parametrize(
    "service",
    [
        "image: x, ports: ['5432:5432']",
        "image: x, ports: ['443:443']",
        "image: 'registry:5000/library/redis:7@sha256:0'",
        "image: x, ports: ['53:53/udp']",
        "image: x, deploy: {replicas: 0}",
        "build: .",
        "build: {context: 'https://git.example/x.git#main'}",
        "image: x, profiles: [debug]",
    ],
)
def test_what_is_left_out(compose: Planning, service: str) -> None:
    """Is said once, for the whole service."""
    plan = compose(f"services: {{a: {{image: ok}}, b: {{{service}, networks: [n]}}}}")
    assert [one.name for one in plan.deployments] == ["a"]
    assert [one.place for one in plan.left_out] == ["services.b"]
    assert "services.b.networks" not in remarks(plan)


def test_profiles_are_imported_where_they_are_named(compose: Planning) -> None:
    """By name, or all of them."""
    text = "services: {a: {image: x}, b: {image: x, profiles: [debug]}}"
    for profiles in ("debug", "*"):
        plan = compose(text, profiles=frozenset([profiles]))
        assert [one.name for one in plan.deployments] == ["a", "b"]


def test_limits_and_privileges(compose: Planning) -> None:
    """In both places where Compose has them; what is not a limit is said."""
    plan = compose(
        """\
        services:
          a:
            image: x
            mem_limit: 1.5g
            cpus: 0.5
            pids_limit: 100
            user: "1000:1000"
            cap_drop: [ALL]
            cap_add: [NET_BIND_SERVICE]
          b:
            image: x
            privileged: true
            deploy:
              resources:
                limits: {cpus: '0.25', memory: 50M, pids: 10}
                reservations: {memory: 20M}
          c:
            image: x
            mem_limit: 1m
            user: "not a user"
            cap_add: [ALL]
        """
    )
    assert body(plan, "a")["resources"] == {"memory": 3 * 2**29, "cpus": 0.5, "pids": 100}
    assert body(plan, "a")["user"] == "1000:1000"
    assert body(plan, "a")["capabilities"] == ["NET_BIND_SERVICE"]
    assert body(plan, "b")["resources"] == {"cpus": 0.25, "memory": 50 * 2**20, "pids": 10}
    said = remarks(plan)
    assert {"services.b.privileged", "services.b.deploy.resources.reservations"} <= said.keys()
    assert {"resources", "user", "capabilities"}.isdisjoint(body(plan, "c"))
    assert {"services.c.user", "services.c.cap_add[0]", "services.c"} <= said.keys()


@pytest.mark.parametrize(
    ("test", "path"),
    [
        ('["CMD", "curl", "-f", "http://localhost:80/health?x=1"]', "/health?x=1"),
        ('["CMD-SHELL", "wget -qO- http://127.0.0.1/ready || exit 1"]', "/ready"),
        ("curl --fail http://localhost || exit 1", "/"),
        ('["CMD", "curl", "-f", "http://localhost:9090/health"]', None),
        ('["CMD", "curl", "-fk", "https://localhost/health"]', None),
        ('["CMD", "pg_isready"]', None),
        ('["NONE"]', None),
    ],
)
def test_health_that_is_asked_over_http(compose: Planning, test: str, path: str | None) -> None:
    """With curl or wget, at the deployment's port; other checks are said not to be run."""
    plan = compose(
        f"services: {{a: {{image: x, ports: [80], healthcheck: {{test: {test}, interval: 1m30s}}}}}}"
    )
    assert body(plan).get("health", {}).get("path") == path
    if path is None:
        assert any(place.startswith("services.a.healthcheck") for place in remarks(plan))
    else:
        assert body(plan)["health"]["interval"] == 90.0


def test_what_is_run(compose: Planning) -> None:
    """A text is split as by a shell and run by none; an empty one keeps the image's own."""
    plan = compose(
        """\
        services:
          a: {image: x, entrypoint: /entry.sh, command: 'echo "a b" $$HOME'}
          b: {image: x, command: []}
        """
    )
    assert body(plan, "a")["entrypoint"] == ["/entry.sh"]
    assert body(plan, "a")["command"] == ["echo", "a b", "$HOME"]
    assert "command" not in body(plan, "b")
    assert "services.b.command" in remarks(plan)


def test_mounts(compose: Planning) -> None:
    """Named volumes are mounted; files of the host, and what has no name, are not."""
    plan = compose(
        """\
        services:
          a:
            image: x
            volumes:
              - data:/data:ro
              - ./conf:/etc/conf:ro
              - /var/run/docker.sock:/var/run/docker.sock
              - ~/x:/x
              - /cache
              - {type: volume, source: more, target: /more}
              - {type: bind, source: ., target: /src}
              - {type: tmpfs, target: /t}
              - data:/again
              - sys:/proc/x
          b: {image: x, volumes: [data:/data]}
        volumes: {data: {driver: local, external: true}, more: }
        """
    )
    assert body(plan, "a")["volumes"] == [
        {"name": "data", "path": "/data"},
        {"name": "more", "path": "/more"},
    ]
    said = remarks(plan)
    assert {f"services.a.volumes[{n}]" for n in (1, 2, 3, 4, 6, 7, 8, 9)} <= said.keys()
    assert "each deployment has its own" in said["services.b.volumes[0]"][1]
    assert {"volumes.data.driver", "volumes.data.external"} <= said.keys()


def test_nothing_is_dropped_in_silence(compose: Planning) -> None:
    """Known parts with their reason, unknown ones as such; extensions are what they are."""
    plan = compose(
        """\
        version: "3"
        x-common: {a: 1}
        services:
          a:
            image: x
            x-note: y
            helthcheck: {test: NONE}
            networks: [n]
            labels: {a: b}
            secrets: [s]
            deploy: {placement: {}, frobnicate: 1}
        networks: {n: }
        secrets: {s: {file: ./s}}
        frobnicate: 1
        """
    )
    said = remarks(plan)
    expected = {
        "services.a.helthcheck",
        "services.a.networks",
        "services.a.labels",
        "services.a.secrets",
        "services.a.deploy.placement",
        "services.a.deploy.frobnicate",
        "secrets",
        "frobnicate",
    }
    assert expected <= said.keys()
    assert "not known" in said["services.a.helthcheck"][1]
    instead = {one.place: one.instead for one in plan.remarks}
    assert instead["services.a.helthcheck"] == "is it healthcheck?"
    assert not any("x-" in place or "version" in place for place in said)


def test_services_that_begin_as_others(compose: Planning, tmp_path: Path) -> None:
    """By anchors, by `extends` here, and by `extends` of a file beside it."""
    (tmp_path / "my" / "sub").mkdir(parents=True)
    (tmp_path / "my" / "sub" / "common.yml").write_text(
        "services:\n  base:\n    extends: {file: deep/z.yml, service: z}\n    image: x:1\n    env_file: [c.env]\n    environment: [A=1, B=1]\n"
        "    ports: ['80']\n    labels: {l: x}\n"
    )
    (tmp_path / "my" / "sub" / "deep").mkdir()
    (tmp_path / "my" / "sub" / "deep" / "z.yml").write_text("services: {z: {env_file: z.env}}")
    (tmp_path / "my" / "sub" / "deep" / "z.env").write_text("Z=deep\n")
    (tmp_path / "my" / "sub" / "c.env").write_text("C=sub\n")
    (tmp_path / "my" / "c.env").write_text("C=own\n")
    plan = compose(
        """\
        x-env: &env {environment: {E: anchor}}
        services:
          a: {extends: {file: sub/common.yml, service: base}, environment: {B: 2}, command: [run]}
          b: {extends: a, image: "x:2"}
          c: {<<: *env, image: x}
        """
    )
    assert body(plan, "b")["image"] == "x:2"
    assert body(plan, "b")["command"] == ["run"]
    assert body(plan, "b")["port"] == 80
    assert body(plan, "b")["environment"] == {"Z": "deep", "C": "sub", "A": "1", "B": "2"}
    assert body(plan, "c")["environment"] == {"E": "anchor"}
    with pytest.raises(CommandFailed, match="in a circle"):
        compose("services: {a: {extends: b}, b: {extends: a}}")
    with pytest.raises(CommandFailed, match="no service 'z'"):
        compose("services: {a: {extends: z}}")
    with pytest.raises(CommandFailed, match="outside"):
        compose("services: {a: {extends: {file: ../../x.yml, service: z}}}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("services: {}", "compose.yml:1: "),
        ("services: []", "compose.yml:1: services"),
        ("services:\n  a: {ports: [80]}", "compose.yml:2: services.a: "),
        ("services:\n  a: text", "compose.yml:2: services.a: "),
        (
            "services:\n  a:\n    image: x\n    ports: ['http']",
            "compose.yml:4: services.a.ports[0]",
        ),
        ("services:\n  a:\n    image: x\n    ports: 80", "compose.yml:4: services.a.ports"),
        ("services:\n  a:\n    image: [x]", "compose.yml:3: services.a.image"),
        (
            "services:\n  a:\n    image: x\n    mem_limit: lots",
            "compose.yml:4: services.a.mem_limit",
        ),
        ("services:\n  a:\n    image: x\n    scale: few", "compose.yml:4: services.a.scale"),
        ("services:\n  a:\n    image: x\n    command: 'a \"'", "compose.yml:4: services.a.command"),
        ("services:\n  a:\n    image: $(x)", "compose.yml:3: services.a.image"),
        (
            "services:\n  a:\n    image: x\n    env_file: none.env",
            "compose.yml:4: services.a.env_file",
        ),
    ],
)
def test_a_file_that_is_wrong(compose: Planning, text: str, place: str) -> None:
    """Is refused as a whole, with file, line and place."""
    with pytest.raises(CommandFailed) as caught:
        compose(text)
    assert caught.value.message.startswith(place)
