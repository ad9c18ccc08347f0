"""A gate's matrices as the right-hand factor of a product: `[blocks, given, made]`, read from memory into a tile."""

from collections.abc import Sequence

from quanta_compiler.kernels.engines.triton.tiles import Order, Sizes, padded
from quanta_compiler.lowering.table import TableEntry


class Factor:
    """The matrices of an entry, or their transposes; of a slice, the ones on its diagonal, which memory has not."""

    def __init__(self, sizes: Sizes, entry: TableEntry, pointer: str, *, transposed: bool) -> None:
        legs = entry.legs
        self._sizes = sizes
        self._pointer = pointer if entry.matrix is not None else None
        self.per: Order = legs.per if entry.matrix is not None else ()
        self.rest: Order = legs.rest if entry.matrix is not None else legs.per + legs.rest
        self.given, self.made = (legs.rows, legs.columns) if transposed else (legs.columns, legs.rows)
        if entry.matrix is not None:
            self._strides = sizes.strides((*legs.per, *legs.rows, *legs.columns))
        else:  # compared, not read: the place of a row with that of a column
            self._strides = {**sizes.strides(legs.rows), **sizes.strides(legs.columns)}

    def matrix(self, indices: Sequence[str], of_per: int, of_rest: int) -> str:
        """Return the expression that reads all of it, `[blocks, beside * given, beside * made]`.

        Args:
            indices: The names of flat indices over the three dimensions.
            of_per: How many of the last axes of the blocks stand beside the gate.
            of_rest: How many of the axes that the gate leaves alone do; for these it is the same.

        """
        batched = len(self._sizes.bits(self.per)) > of_per
        spreads = (
            ("[:, None, None]", "[None, :, None]", "[None, None, :]") if batched else ("", "[:, None]", "[None, :]")
        )
        block, left, right = (f"{index}{spread}" for index, spread in zip(indices, spreads, strict=True))
        conditions = []
        if of_per + of_rest:
            given, made = self._sizes.padded(self.given), self._sizes.padded(self.made)
            conditions.append(f"({left} // {given} == {right} // {made})")
            beside = f"{left} // {given << of_rest}" if of_per else ""
            outer = f"{block} * {1 << of_per}" if batched and of_per else block if batched else ""
            block = f"({outer} + {beside})" if outer and beside else outer or beside
            left, right = f"{left} % {given}", f"{right} % {made}"
        parts = [(left, self.given), (right, self.made), *([(block, self.per)] if self.per else [])]
        terms = []
        for index, legs in parts:
            at, masks = self._sizes.places(index, legs, self._strides)
            # An index of one place still gives its dimension where others stand in it beside the gate.
            terms.append(at or f"{index} * 0" if of_per + of_rest or self._pointer is None else at)
            conditions += masks
        return self._read([*filter(None, terms)] or [f"{left} * 0"], conditions)

    def row(self, place: int, block: str, made: str) -> str | None:
        """Return the expression that reads the numbers of one given place, `[blocks, made]`; None in the padding.

        Args:
            place: The place among the given axes, with their padding.
            block: The name of a flat index over the blocks.
            made: That of one over what is made.

        """
        at = 0
        for leg in reversed(self.given):
            place, coordinate = divmod(place, padded(self._sizes.sizes[leg]))
            if coordinate >= self._sizes.sizes[leg]:
                return None
            at += coordinate * self._strides[leg]
        made = f"{made}[None, :]"
        of_made, conditions = self._sizes.places(made, self.made, self._strides)
        if self._pointer is None:
            return self._read([str(at), of_made or f"{made} * 0"], conditions)
        of_block, masks = self._sizes.places(f"{block}[:, None]", self.per, self._strides)
        terms = [*filter(None, (of_block, of_made))] or [f"{made} * 0"]
        return self._read([str(at), *terms] if at else terms, conditions + masks)

    def _read(self, terms: Sequence[str], conditions: Sequence[str]) -> str:
        if self._pointer is None:
            given, made = terms
            return f"tl.where({' & '.join([f'({given} == {made})', *conditions])}, 1.0, 0.0).to(STATE)"
        mask = f", mask={' & '.join(conditions)}, other=0.0" if conditions else ""
        return f"tl.load({self._pointer} + {' + '.join(terms)}{mask}).to(STATE)"
