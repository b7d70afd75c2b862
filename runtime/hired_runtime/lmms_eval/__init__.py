"""A bundle as a model of lmms-eval, the harness that HiRED's published figures come from: docs/lmms-eval.md.

lmms-eval is a workstation's program, and needs torch; this package needs neither, and nothing else of the runtime
imports it. lmms-eval finds `plugin.manifest` as an entry point of the group `lmms_eval.models`.
"""
