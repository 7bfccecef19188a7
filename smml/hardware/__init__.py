"""The machine: what it is (`detect`), what it can reach (`ceilings`), with which sizes it runs (`select`)."""

from smml.hardware.ceiling import Ceiling, Ceilings
from smml.hardware.ceiling_cache import ceilings
from smml.hardware.detect import detect
from smml.hardware.machine import Cpu, Disk, Ec2, Gpu, Interface, Machine, Note, Software
from smml.hardware.profile import PROFILES, Profile, select

__all__ = [
    "PROFILES",
    "Ceiling",
    "Ceilings",
    "Cpu",
    "Disk",
    "Ec2",
    "Gpu",
    "Interface",
    "Machine",
    "Note",
    "Profile",
    "Software",
    "ceilings",
    "detect",
    "select",
]
