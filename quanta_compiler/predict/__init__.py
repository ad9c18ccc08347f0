"""How long a circuit will take, from its plan and from what the machine was once measured to do; without torch."""
