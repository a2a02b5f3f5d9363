"""What the lab's own tests share: the lab fixtures and a tunnel made by hand."""

from tests.lab.fixtures import lab, module_lab

__all__ = ["lab", "module_lab"]
