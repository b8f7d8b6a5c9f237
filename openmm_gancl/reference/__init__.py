"""The reference: internal coordinates and the potential that is a product in them."""
