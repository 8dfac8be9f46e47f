"""Floor 6: what was trained, used: evaluated, asked, handed on."""
