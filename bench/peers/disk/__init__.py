"""Terrace's NVMe tier side by side with its peers' disk side, and with fio."""
