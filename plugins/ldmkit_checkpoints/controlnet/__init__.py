"""ControlNets as cldm and diffusers publish them."""
