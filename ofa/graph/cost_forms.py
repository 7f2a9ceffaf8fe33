"""`cost_forms`: the costs of a captured graph as products of the forms of its sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.fx import Node

from ofa.graph.capture import Capture, tensors_in
from ofa.graph.costs import CostForms, Product, Storage
from ofa.graph.forms import Form
from ofa.graph.groups import operator_calls
from ofa.graph.labels.analysis import label_graph
from ofa.graph.labels.call import Call, operator_name, size_hint, sizes_of, tensor_sizes
from ofa.graph.parts import ElasticParts

_VIEWS = frozenset(
    {
        "view",
        "_unsafe_view",
        "reshape",
        "flatten",
        "unflatten",
        "view_as",
        "reshape_as",
        "squeeze",
        "unsqueeze",
    }
    | {"permute", "transpose", "t", "numpy_T", "swapaxes", "expand", "expand_as", "detach", "alias"}
    | {"slice", "narrow", "select", "split", "split_with_sizes", "chunk", "unbind", "getitem"}
    | {"contiguous", "dropout", "feature_dropout"}
)


def cost_forms(parts: ElasticParts, model: nn.Module, captures: Sequence[Capture], batch: int) -> CostForms:
    """Return the costs of all sub-networks, for one image.

    Convolutions, linear layers and matrix products count as multiply-accumulates, as in the published
    once-for-all code; norms, activations and pooling do not.

    Args:
        parts: what may vary.
        model: the user's network.
        captures: the graph at each resolution, ascending; all with the same operators.
        batch: number of images of the example.
    """
    return _CostForms(parts, model, captures, batch).result()


class _CostForms:
    def __init__(
        self, parts: ElasticParts, model: nn.Module, captures: Sequence[Capture], batch: int
    ) -> None:
        self.parts, self.model = parts, model
        # Graphs that operators run are among the labelled ones.
        self.nodes = list(parts.grouping.labelled.labels)
        self.index = {node: index for index, node in enumerate(self.nodes)}
        self.aligned = [
            self.nodes
            if captured is parts.capture
            else list(label_graph(captured.program.graph, captured.parameters).labels)
            for captured in captures
        ]
        self.batch = batch
        self.names = parts.capture.parameters
        self.kernels = {kernel.weight for kernel in parts.kernels}
        self.block_of = {node: block.name for block in parts.blocks for node in block.nodes}

    def result(self) -> CostForms:
        calls = operator_calls(self.parts.grouping.labelled)
        macs = [product for node, call in calls for product in self._macs(node, call)]
        return CostForms(
            tuple(macs),
            tuple(self._parameters()),
            tuple(self._storages()),
            tuple(self.block_of.get(node, "") for node in self.nodes),
        )

    # -- multiply-accumulates ------------------------------------------------------------------------

    def _macs(self, node: Node, call: Call) -> list[Product]:
        name = operator_name(node)
        if name.startswith("conv"):
            weight = call.input("weight")
            kernel = self.names.get(weight.name, "")
            source = call.input("input") if "transpose" in name else node
            is_elastic = kernel in self.kernels
            axes = [(weight, 0), (weight, 1), *((weight, dim) for dim in range(2, len(sizes_of(weight))))]
            axes = axes[:2] if is_elastic else axes
            space = [(source, dim) for dim in range(len(sizes_of(source))) if dim != 1]
            return [self._product(node, [*axes, *space], kernel if is_elastic else "")]
        if name == "linear":
            weight = call.input("weight")
            lead = [(node, dim) for dim in range(len(call.out_sizes) - 1)]
            return [self._product(node, [(weight, 0), (weight, 1), *lead])]
        if name in ("matmul", "bmm", "mm", "addmm", "baddbmm"):
            first = call.input({"addmm": "mat1", "baddbmm": "batch1"}.get(name, "self"))
            out = [(node, dim) for dim in range(len(call.out_sizes))]
            return [self._product(node, [*out, (first, len(sizes_of(first)) - 1)])]
        if name == "scaled_dot_product_attention":
            query, value = call.input("query"), call.input("value")
            rank = len(sizes_of(query))
            scores = [*((query, dim) for dim in range(rank - 1)), (value, rank - 2)]
            ends = (query, rank - 1), (value, rank - 1)
            return [self._product(node, [*scores, end]) for end in ends]
        if name == "einsum":
            inputs = call.arguments["equation"].replace(" ", "").split("->")[0].split(",")
            operands = zip(inputs, call.arguments["tensors"], strict=True)
            letters = {
                letter: (operand, dim) for text, operand in operands for dim, letter in enumerate(text)
            }
            return [self._product(node, list(letters.values()))]
        return []

    def _product(self, node: Node, axes: Sequence[tuple[Node, int]], kernel: str = "") -> Product:
        """Return the product of the sizes of some axes of tensors, for one image."""
        forms = [(self._form(source, dim), source, dim) for source, dim in axes]
        elastic = tuple(form for form, _, _ in forms if form.terms)
        fixed = [(source, dim) for form, source, dim in forms if not form.terms]
        factors = []
        for nodes in self.aligned:
            sizes = [self._size(nodes[self.index[source]], dim) for source, dim in fixed]
            factors.append(math.prod(sizes) / self.batch)
        return Product(tuple(factors), elastic, kernel, self.block_of.get(node, ""))

    def _size(self, node: Node, dim: int) -> int:
        """Return the size of an axis; one that depends on data counts as the batch."""
        size = node.meta["val"].shape[dim]
        depends_on_data = isinstance(size, torch.SymInt) and not isinstance(size.node.hint, int)
        return self.batch if depends_on_data else size_hint(size)

    def _form(self, node: Node, dim: int) -> Form:
        axis = self.parts.grouping.labelled.labels[node][dim]
        return self.parts.grouping.form(axis, sizes_of(node)[dim])

    # -- parameters ----------------------------------------------------------------------------------

    def _parameters(self) -> Iterator[Product]:
        grouping, blocks = self.parts.grouping, [block.name for block in self.parts.blocks]
        for name, parameter in self.model.named_parameters():
            axes = grouping.labelled.parameters.get(name, [None] * parameter.dim())
            forms = [grouping.form(axis, size) for axis, size in zip(axes, parameter.shape, strict=True)]
            is_elastic = name in self.kernels
            forms = forms[:2] if is_elastic else forms
            constant = math.prod(form.constant for form in forms if not form.terms)
            block = next((block for block in blocks if name.startswith(f"{block}.")), "")
            yield Product(
                (float(constant),) * len(self.aligned),
                tuple(form for form in forms if form.terms),
                name if is_elastic else "",
                block,
            )

    # -- memory --------------------------------------------------------------------------------------

    def _storages(self) -> Iterator[Storage]:
        roots = self._roots()
        last: dict[Node, int] = {}
        last_outside: dict[tuple[Node, str], int] = {}
        for step, node in enumerate(self.nodes):
            for source in node.all_input_nodes:
                root = roots.get(source)
                if root is None:
                    continue
                last[root] = step
                for block in self.parts.blocks:
                    if roots.get(block.source) is root and self.block_of.get(node) != block.name:
                        last_outside[root, block.name] = step
        for root in dict.fromkeys(roots.values()):
            first = self.index[root]
            yield Storage(self._elements(root), first, last.get(root, first))
        for block in self.parts.blocks:
            root, result = roots[block.source], roots[block.result]
            begin = last_outside.get((root, block.name), self.index[root]) + 1
            yield Storage(self._elements(root), begin, last.get(result, begin), block.name)

    def _roots(self) -> dict[Node, Node]:
        """Return, per node with a tensor, the node whose memory it uses; parameters are left out."""
        roots: dict[Node, Node] = {}
        for node in self.nodes:
            is_parameter = node.op == "placeholder" and node.name in self.names
            if is_parameter or node.graph is not self.parts.capture.program.graph:
                continue
            if not tensors_in(node.meta.get("val")) or node.op == "output":
                continue
            name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
            sources = [source for source in node.all_input_nodes if source in roots]
            is_alias = operator_name(node) in _VIEWS or name.endswith("_")
            roots[node] = roots[sources[0]] if is_alias and sources else node
        return roots

    def _elements(self, node: Node) -> Product:
        value = node.meta["val"]
        if isinstance(value, Tensor):
            return self._product(node, [(node, dim) for dim in range(value.dim())])
        total = sum(math.prod(tensor_sizes(tensor)) for tensor in tensors_in(value))
        return Product((total / self.batch,) * len(self.aligned), (), "", self.block_of.get(node, ""))
