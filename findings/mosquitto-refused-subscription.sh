#!/bin/bash
# Mosquitto 2.0.21 (Debian 13): whether a client hears that it may not subscribe depends on which of
# the broker's two ways to say who may do what is used.
#
# Expected: a SUBSCRIBE that the access rules do not allow is refused in the SUBACK (MQTT 3.1.1, 3.9.3:
# 0x80; MQTT 5, 3.9.3: 0x87), and a client that was refused gets nothing until it subscribes again.
#
# Seen, with the same rule, "open/# and nothing else":
# - Under an ACL file every SUBSCRIBE is granted, "shut/x" and "#", too, and nothing arrives. Once the
#   file is widened and read again (SIGHUP), that old subscription delivers, without a new SUBSCRIBE.
#   A client cannot know that it was refused; it can only tell by what arrives.
# - Under the dynamic security plugin both are refused, with 0x80 and 0x87.
# - One message for two overlapping subscriptions arrives once at a 3.1.1 client, twice at an MQTT 5 one.
#
# Needs Debian's apt-get on x86-64, python3 with venv, and a Debian archive among the machine's apt
# sources. Installs nothing outside a temporary folder; listens on loopback only.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

archive=$(apt-get indextargets --format '$(REPO_URI)' | grep -m 1 '/debian/*$') ||
    { echo "no Debian archive among apt's sources" >&2; exit 2; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p apt/lists/partial apt/cache/archives/partial root
echo "deb [signed-by=$keyring arch=amd64 target=Packages] $archive trixie main" > apt/sources.list
apt=(apt-get -qq -o "Dir::Etc::SourceList=$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/apt/lists" -o Dir::State::Status=/dev/null
    -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root -o APT::Architectures::=amd64)
"${apt[@]}" update
"${apt[@]}" download mosquitto libc6 libcap2 libcjson1 libdlt2 libgcc-s1 libssl3t64 libsystemd0 \
    libwebsockets19t64 libwrap0 libzstd1 zlib1g
version=$(dpkg-deb --field mosquitto_*.deb Version)
case $version in
    2.0.21-*) ;;
    *) echo "CHANGED: Debian 13 has Mosquitto $version now; measured was 2.0.21" >&2; exit 1 ;;
esac
for package in *.deb; do dpkg-deb --extract "$package" root; done
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check paho-mqtt==2.1.0

cat > probe.py << 'PROBE'
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

HERE = Path.cwd()
LIBRARIES = HERE / "root/usr/lib/x86_64-linux-gnu"
BROKER = [LIBRARIES / "ld-linux-x86-64.so.2", "--inhibit-cache", "--library-path", LIBRARIES]
PATIENCE = 10
VERSIONS = (MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5)


class Peer:
    """A client that waits for each answer of the broker."""

    def __init__(self, port, version):
        self.arrived, self.news = [], threading.Condition()
        self.answers = {}
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.client.on_connect = lambda *_: self.note("connected", True)
        self.client.on_message = lambda _c, _d, message: self.note(None, message.payload.decode())
        self.client.on_subscribe = lambda _c, _d, packet, reasons, _p: self.note(
            packet, reasons[0].value
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.wait("connected")

    def note(self, key, value):
        with self.news:
            if key is None:
                self.arrived.append(value)
            else:
                self.answers[key] = value
            self.news.notify_all()

    def wait(self, key):
        with self.news:
            assert self.news.wait_for(lambda: key in self.answers, PATIENCE), "no answer"
            return self.answers[key]

    def subscribe(self, topic):
        return self.wait(self.client.subscribe(topic, 1)[1])

    def publish(self, topic, text):
        self.client.publish(topic, text, 1).wait_for_publish(PATIENCE)

    def hears(self, last):
        """What has arrived, once the message with this text has."""
        with self.news:
            assert self.news.wait_for(lambda: last in self.arrived, PATIENCE), self.arrived
            return [text for text in self.arrived if text != last]

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()


def start(name, rules):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    user = "user root\n" if os.geteuid() == 0 else ""
    config = HERE / f"{name}.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{user}{rules}\n")
    log = (HERE / f"{name}.log").open("w")
    broker = subprocess.Popen([*BROKER, HERE / "root/usr/sbin/mosquitto", "-c", config], stderr=log)
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return broker, port
        threading.Event().wait(0.05)
    sys.exit(f"the broker does not start: {(HERE / f'{name}.log').read_text()}")


def expect(what, seen, measured):
    print(f"{what}: {seen}")
    if seen != measured:
        sys.exit(f"CHANGED: {what}: measured was {measured}")


def with_acl_file():
    acl = HERE / "acl"
    acl.touch()
    broker, port = start("acl", f"acl_file {acl}")
    try:
        for version, copies in zip(VERSIONS, (1, 2)):
            acl.write_text("topic readwrite open/#\n")
            broker.send_signal(signal.SIGHUP)
            peer = Peer(port, version)
            codes = [peer.subscribe(topic) for topic in ("open/x", "shut/x", "#")]
            expect(f"ACL file, {version.name}, SUBACK of open/x, shut/x, #", codes, [1, 1, 1])
            peer.publish("shut/x", "early")
            peer.publish("open/x", "first")
            heard = sorted(set(peer.hears("first")))
            expect(f"ACL file, {version.name}, what of shut/x arrives", heard, [])
            acl.write_text("topic readwrite open/#\ntopic readwrite shut/#\n")
            broker.send_signal(signal.SIGHUP)
            heard, tries = [], 0
            while not heard and tries < 100:  # The signal is handled in the broker's own time.
                tries += 1
                peer.publish("shut/x", f"late {tries}")
                peer.publish("open/x", f"after {tries}")
                heard = [text for text in peer.hears(f"after {tries}") if text == f"late {tries}"]
            what = f"ACL file, {version.name}, copies of shut/x after the file was widened"
            expect(what, len(heard), copies)
            peer.end()
    finally:
        broker.terminate()
        broker.wait(PATIENCE)


def with_plugin():
    rules = {
        "defaultACLAccess": {
            "publishClientSend": True,
            "publishClientReceive": True,
            "subscribe": False,
            "unsubscribe": True,
        },
        "anonymousGroup": "anybody",
        "groups": [{"groupname": "anybody", "roles": [{"rolename": "reader"}]}],
        "roles": [
            {
                "rolename": "reader",
                "acls": [
                    {
                        "acltype": "subscribePattern",
                        "topic": "open/#",
                        "priority": 0,
                        "allow": True,
                    }
                ],
            }
        ],
    }
    file = HERE / "rules.json"
    file.write_text(json.dumps(rules))
    file.chmod(0o600)
    plugin = next((HERE / "root/usr/lib").rglob("mosquitto_dynamic_security.so"))
    broker, port = start("plugin", f"plugin {plugin}\nplugin_opt_config_file {file}")
    try:
        for version, refused in zip(VERSIONS, (0x80, 0x87)):
            peer = Peer(port, version)
            codes = [peer.subscribe(topic) for topic in ("open/x", "shut/x", "#")]
            what = f"dynamic security, {version.name}, SUBACK of open/x, shut/x, #"
            expect(what, codes, [1, refused, refused])
            peer.end()
    finally:
        broker.terminate()
        broker.wait(PATIENCE)


with_acl_file()
with_plugin()
PROBE
venv/bin/python probe.py
echo "as measured: Mosquitto $version, paho-mqtt 2.1.0"
